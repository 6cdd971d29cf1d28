/* SPDX-License-Identifier: GPL-2.0-only */
/* The memory that a test buffer has at one time. */
#ifndef DMABUF_TEST_BACKING_H
#define DMABUF_TEST_BACKING_H

#include <linux/list.h>
#include <linux/types.h>

/**
 * struct backing - memory in pieces of one size
 * @retired: link in dmabuf_test::retired
 * @maps: number of live DMA mappings, under the reservation lock
 * @order: each piece has 2^order pages
 * @nr: number of pieces
 * @chunks: the first page of each piece
 */
struct backing {
	struct list_head retired;
	unsigned int maps;
	unsigned int order;
	unsigned int nr;
	struct page *chunks[] __counted_by(nr);
};

/* Allocates zeroed memory in pieces of 2^@order pages. Returns NULL if out of memory. */
struct backing *backing_alloc(size_t bytes, unsigned int order);
void backing_free(struct backing *backing);
void backing_copy(struct backing *to, struct backing *from);
void backing_poison(struct backing *backing);
u64 backing_dirty(struct backing *backing);

static inline size_t backing_chunk_size(const struct backing *backing)
{
	return PAGE_SIZE << backing->order;
}

/* Returns the first page of piece @i. A buffer larger than its backing repeats it. */
static inline struct page *backing_chunk(const struct backing *backing, size_t i)
{
	return backing->chunks[i % backing->nr];
}

static inline struct page *backing_page(const struct backing *backing, pgoff_t i)
{
	return backing_chunk(backing, i >> backing->order) +
	       (i & ((1UL << backing->order) - 1));
}

#endif /* DMABUF_TEST_BACKING_H */
