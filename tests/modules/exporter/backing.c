// SPDX-License-Identifier: GPL-2.0-only
/* Allocates, copies and poisons the memory of test buffers. */
#include <linux/gfp.h>
#include <linux/math.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/topology.h>

#include "backing.h"
#include "dmabuf-test.h"

/*
 * Returns the place in the buffer of the piece that is allocated as number @i.
 * The allocator often returns neighbours one after the other. Places alternate
 * between both ends of the buffer, so that these are no neighbours there.
 */
static unsigned int interleave(unsigned int i, unsigned int nr)
{
	return i % 2 ? nr - 1 - i / 2 : i / 2;
}

/*
 * Allocates a piece. alloc_contig_pages() searches free memory for pieces that
 * are larger than the largest of the page allocator.
 */
static struct page *chunk_alloc(unsigned int order)
{
	gfp_t gfp = GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN;

	if (order > MAX_PAGE_ORDER)
		return alloc_contig_pages(1ul << order, gfp, numa_mem_id(), NULL);
	return alloc_pages(gfp, order);
}

static void chunk_free(struct page *page, unsigned int order)
{
	if (order > MAX_PAGE_ORDER)
		free_contig_range(page_to_pfn(page), 1ul << order);
	else
		__free_pages(page, order);
}

struct backing *backing_alloc(size_t bytes, unsigned int order)
{
	size_t nr = DIV_ROUND_UP(bytes, PAGE_SIZE << order);
	struct backing *backing;
	struct page *page;

	backing = kvzalloc_flex(*backing, chunks, nr);
	if (!backing)
		return NULL;
	backing->nr = nr;
	backing->order = order;
	INIT_LIST_HEAD(&backing->retired);

	for (unsigned int i = 0; i < nr; i++) {
		page = chunk_alloc(order);
		if (!page) {
			backing_free(backing);
			return NULL;
		}
		backing->chunks[interleave(i, nr)] = page;
	}
	return backing;
}

void backing_free(struct backing *backing)
{
	for (unsigned int i = 0; i < backing->nr; i++)
		if (backing->chunks[i])
			chunk_free(backing->chunks[i], backing->order);
	kvfree(backing);
}

void backing_copy(struct backing *to, struct backing *from)
{
	for (unsigned int i = 0; i < from->nr; i++)
		memcpy(page_address(to->chunks[i]),
		       page_address(from->chunks[i]), backing_chunk_size(from));
}

void backing_poison(struct backing *backing)
{
	for (unsigned int i = 0; i < backing->nr; i++)
		memset(page_address(backing->chunks[i]), DMABUF_TEST_POISON,
		       backing_chunk_size(backing));
}

static u64 chunk_dirty(const u8 *bytes, size_t size)
{
	u64 dirty = 0;

	if (!memchr_inv(bytes, DMABUF_TEST_POISON, size))
		return 0;
	for (size_t i = 0; i < size; i++)
		dirty += bytes[i] != DMABUF_TEST_POISON;
	return dirty;
}

/* Returns how many bytes were written to since the memory was poisoned. */
u64 backing_dirty(struct backing *backing)
{
	u64 dirty = 0;

	for (unsigned int i = 0; i < backing->nr; i++)
		dirty += chunk_dirty(page_address(backing->chunks[i]),
				     backing_chunk_size(backing));
	return dirty;
}
