// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests the generic helpers with an iterator over a dma-buf token.
 *
 * The CPU cannot reach the memory. So a helper that copies must copy nothing and
 * leave the iterator where it is, a helper that takes pages gets none, and only
 * helpers that count advance. A helper that does not know the type treats the
 * iterator as ITER_DISCARD: it claims to have copied all, and advances.
 *
 * No helper may dereference the token. So there is no token: the pointer leads to
 * a page that faults.
 */
#include <linux/bvec.h>
#include <linux/dma-buf-token.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/uio.h>
#include <kunit/test.h>

#define OFFSET (5ULL << 30)	/* beyond 32 bits */
#define COUNT 16384

/* In no order, the second one with a part of a page only */
static const struct dmabuf_range ranges[] = {
	{ OFFSET, 8192 },
	{ 512, 512 },
	{ 2 * OFFSET + 1024, COUNT - 8192 - 512 },
};

static const struct dmabuf_token_vec vec = {
	.token = (void *)-4096L,
	.ranges = ranges,
	.nr = ARRAY_SIZE(ranges),
};

static struct iov_iter iterator(unsigned int direction)
{
	struct iov_iter iter;

	iov_iter_dmabuf_token(&iter, direction, &vec, COUNT);
	return iter;
}

static void is_at(struct kunit *test, const struct iov_iter *iter, size_t done)
{
	unsigned int first = 0;

	KUNIT_EXPECT_EQ(test, iov_iter_count(iter), COUNT - done);
	while (first < ARRAY_SIZE(ranges) && done >= ranges[first].len)
		done -= ranges[first++].len;
	KUNIT_EXPECT_EQ(test, iter->iov_offset, done);
	KUNIT_EXPECT_EQ(test, iter->nr_segs, ARRAY_SIZE(ranges) - first);
	KUNIT_EXPECT_PTR_EQ(test, iter->dmabuf_vec, &vec);
}

static struct page *a_page(struct kunit *test, u8 content)
{
	void *memory = (void *)__get_free_page(GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, memory);
	memset(memory, content, PAGE_SIZE);
	return virt_to_page(memory);
}

static void nothing_is_copied_to_it(struct kunit *test)
{
	struct iov_iter iter = iterator(ITER_DEST);
	struct page *page = a_page(test, 1);

	KUNIT_EXPECT_EQ(test, copy_to_iter(page_address(page), 512, &iter), 0);
	is_at(test, &iter, 0);
	KUNIT_EXPECT_EQ(test, copy_page_to_iter(page, 0, PAGE_SIZE, &iter), 0);
	is_at(test, &iter, 0);
	KUNIT_EXPECT_EQ(test, copy_page_to_iter_nofault(page, 0, PAGE_SIZE, &iter), 0);
	is_at(test, &iter, 0);
	KUNIT_EXPECT_EQ(test, copy_folio_to_iter(page_folio(page), 0, PAGE_SIZE, &iter), 0);
	is_at(test, &iter, 0);
	KUNIT_EXPECT_EQ(test, _copy_mc_to_iter(page_address(page), 512, &iter), 0);
	is_at(test, &iter, 0);
	KUNIT_EXPECT_FALSE(test, copy_to_iter_full(page_address(page), 512, &iter));
	is_at(test, &iter, 0);
	KUNIT_EXPECT_EQ(test, iov_iter_zero(512, &iter), 0);
	is_at(test, &iter, 0);
	__free_page(page);
}

static void is_unchanged(struct kunit *test, struct page *page)
{
	KUNIT_EXPECT_NULL(test, memchr_inv(page_address(page), 1, PAGE_SIZE));
}

static void nothing_is_copied_from_it(struct kunit *test)
{
	struct iov_iter iter = iterator(ITER_SOURCE);
	struct page *page = a_page(test, 1);

	KUNIT_EXPECT_EQ(test, copy_from_iter(page_address(page), 512, &iter), 0);
	is_at(test, &iter, 0);
	KUNIT_EXPECT_EQ(test, copy_from_iter_nocache(page_address(page), 512, &iter), 0);
	is_at(test, &iter, 0);
	KUNIT_EXPECT_EQ(test, _copy_from_iter_flushcache(page_address(page), 512, &iter), 0);
	is_at(test, &iter, 0);
	KUNIT_EXPECT_EQ(test, copy_page_from_iter(page, 0, PAGE_SIZE, &iter), 0);
	is_at(test, &iter, 0);
	KUNIT_EXPECT_EQ(test,
			copy_folio_from_iter_atomic(page_folio(page), 0, PAGE_SIZE, &iter), 0);
	is_at(test, &iter, 0);
	KUNIT_EXPECT_FALSE(test, copy_from_iter_full(page_address(page), 512, &iter));
	is_at(test, &iter, 0);
	is_unchanged(test, page);
	__free_page(page);
}

static void it_has_no_pages(struct kunit *test)
{
	struct iov_iter iter = iterator(ITER_DEST);
	struct page *few[4] = {}, **pages = few;
	struct bio_vec vecs[2];
	unsigned short nr_vecs = 0;
	size_t start;

	KUNIT_EXPECT_LE(test, iov_iter_get_pages2(&iter, pages, PAGE_SIZE, 4, &start), 0);
	is_at(test, &iter, 0);
	KUNIT_EXPECT_LE(test, iov_iter_extract_pages(&iter, &pages, PAGE_SIZE, 4, 0, &start), 0);
	is_at(test, &iter, 0);
	pages = NULL;
	KUNIT_EXPECT_LE(test, iov_iter_get_pages_alloc2(&iter, &pages, PAGE_SIZE, &start), 0);
	is_at(test, &iter, 0);
	kvfree(pages);
	KUNIT_EXPECT_LT(test, iov_iter_extract_bvecs(&iter, vecs, PAGE_SIZE, &nr_vecs, 2, 0, 0), 0);
	KUNIT_EXPECT_EQ(test, nr_vecs, 0);
	is_at(test, &iter, 0);
	KUNIT_EXPECT_EQ(test, iov_iter_npages(&iter, 4), 0);
}

static void it_cannot_be_faulted_in(struct kunit *test)
{
	struct iov_iter source = iterator(ITER_SOURCE), dest = iterator(ITER_DEST);

	KUNIT_EXPECT_EQ(test, fault_in_iov_iter_readable(&source, 512), 512);
	KUNIT_EXPECT_EQ(test, fault_in_iov_iter_writeable(&dest, 512), 512);
}

static void it_goes_on_and_back(struct kunit *test)
{
	struct iov_iter iter = iterator(ITER_DEST);

	iov_iter_advance(&iter, 4096);
	is_at(test, &iter, 4096);
	iov_iter_revert(&iter, 1024);
	is_at(test, &iter, 3072);
	iov_iter_advance(&iter, 8192 - 3072);
	is_at(test, &iter, 8192);
	iov_iter_advance(&iter, 1024);
	is_at(test, &iter, 9216);
	iov_iter_revert(&iter, 1024 + 4096);
	is_at(test, &iter, 4096);
	iov_iter_advance(&iter, 2 * COUNT);
	is_at(test, &iter, COUNT);
	iov_iter_revert(&iter, COUNT);
	is_at(test, &iter, 0);
	iov_iter_truncate(&iter, 512);
	KUNIT_EXPECT_EQ(test, iov_iter_count(&iter), 512);
	iov_iter_reexpand(&iter, COUNT);
	is_at(test, &iter, 0);
}

static void its_alignment_is_that_of_all_places_and_lengths(struct kunit *test)
{
	struct iov_iter iter = iterator(ITER_DEST);

	KUNIT_EXPECT_EQ(test, iov_iter_alignment(&iter) & 8191, 512 | 1024 | (COUNT - 8192 - 512));
	iov_iter_truncate(&iter, 8192);
	KUNIT_EXPECT_EQ(test, iov_iter_alignment(&iter), OFFSET | 8192);
	iov_iter_advance(&iter, 4096 + 256);
	KUNIT_EXPECT_EQ(test, iov_iter_alignment(&iter) & 511, 256);
	KUNIT_EXPECT_EQ(test, iov_iter_single_seg_count(&iter), 8192 - 4096 - 256);
}

static void a_copy_of_it_is_the_same(struct kunit *test)
{
	struct iov_iter iter = iterator(ITER_DEST), copy;

	KUNIT_EXPECT_NULL(test, dup_iter(&copy, &iter, GFP_KERNEL));
	is_at(test, &copy, 0);
	KUNIT_EXPECT_TRUE(test, iov_iter_is_dmabuf_token(&copy));
	KUNIT_EXPECT_FALSE(test, iov_iter_is_discard(&copy));
	KUNIT_EXPECT_FALSE(test, user_backed_iter(&copy));
}

static struct kunit_case cases[] = {
	KUNIT_CASE(nothing_is_copied_to_it),
	KUNIT_CASE(nothing_is_copied_from_it),
	KUNIT_CASE(it_has_no_pages),
	KUNIT_CASE(it_cannot_be_faulted_in),
	KUNIT_CASE(it_goes_on_and_back),
	KUNIT_CASE(its_alignment_is_that_of_all_places_and_lengths),
	KUNIT_CASE(a_copy_of_it_is_the_same),
	{}
};

static struct kunit_suite suite = {
	.name = "dmabuf-token-iterator",
	.test_cases = cases,
};
kunit_test_suites(&suite);

MODULE_DESCRIPTION("Tests of the iterator over dma-buf tokens");
MODULE_LICENSE("GPL");
