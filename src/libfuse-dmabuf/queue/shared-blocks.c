/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finds the blocks of buffers that FDMABUF_WHOLE_BLOCKS would overwrite although another range has
 * bytes there.
 */
#include <stdlib.h>

#include "base/arithmetic.h"
#include "queue/shared-blocks.h"

/* The first or the last block of a range, of which the range has only a part. */
struct edge {
	const struct fdmabuf_buffer *buffer;
	uint64_t block;			/* number, in the buffer */
	const struct fdmabuf_file *file;
	uint64_t shift;			/* buffer offset minus file offset */
	size_t range;			/* index */
	unsigned char end;		/* SHARED_FIRST or SHARED_LAST */
};

static int compare_edges(const void *a, const void *b)
{
	const struct edge *first = a, *second = b;

	if (first->buffer != second->buffer)
		return (uintptr_t)first->buffer < (uintptr_t)second->buffer ? -1 : 1;
	return first->block < second->block ? -1 : first->block > second->block;
}

static bool is_same_block(const struct edge *a, const struct edge *b)
{
	return a->buffer == b->buffer && a->block == b->block;
}

/* The blocks of different files can be of different sizes: the largest one counts. */
static uint64_t largest_block(const struct fdmabuf_transfer *t)
{
	uint64_t block = BLOCK_SIZE_MIN;

	for (size_t i = 0; i < t->use_count; i++)
		block = max_u64(block, t->uses[i].block_size);
	return block;
}

static size_t list_edges(const struct fdmabuf_transfer *t, uint64_t block, struct edge *edges)
{
	size_t count = 0;

	for (size_t i = 0; i < t->count; i++) {
		const struct fdmabuf_range *range = &t->ranges[i];
		uint64_t from = range->buffer_offset, to = from + range->length;
		struct edge edge = {
			.buffer = range->buffer,
			.block = from / block,
			.file = range->file,
			.shift = from - range->file_offset,
			.range = i,
			.end = SHARED_FIRST,
		};

		if (range->length && from % block)
			edges[count++] = edge;
		edge.block = to / block;
		edge.end = SHARED_LAST;
		if (range->length && to % block)
			edges[count++] = edge;
	}
	return count;
}

/* Marks the edges of one block unless all bytes come from one block of a file. */
static int mark_edges(struct fdmabuf_transfer *t, const struct edge *edges, size_t count)
{
	size_t i = 1;

	while (i < count && edges[i].file == edges->file && edges[i].shift == edges->shift)
		i++;
	if (i >= count)
		return 0;
	if (!t->shared)
		t->shared = calloc(t->count, sizeof(*t->shared));
	if (!t->shared)
		return fail(ENOMEM, "out of memory");
	for (i = 0; i < count; i++)
		t->shared[edges[i].range] |= edges[i].end;
	return 0;
}

int shared_blocks_find(struct fdmabuf_transfer *t)
{
	uint64_t block = largest_block(t);
	struct edge *edges;
	size_t count, next;
	int ret = 0;

	if (!(t->flags & FDMABUF_WHOLE_BLOCKS) || t->count < 2)
		return 0;
	edges = malloc(2 * t->count * sizeof(*edges));
	if (!edges)
		return fail(ENOMEM, "out of memory");
	count = list_edges(t, block, edges);
	qsort(edges, count, sizeof(*edges), compare_edges);
	for (size_t i = 0; i < count && !ret; i = next) {
		for (next = i + 1; next < count && is_same_block(&edges[i], &edges[next]);)
			next++;
		ret = mark_edges(t, edges + i, next - i);
	}
	free(edges);
	return ret;
}

bool shared_blocks_has(const struct fdmabuf_transfer *t, size_t place, unsigned end)
{
	return t->shared && t->shared[range_index(t, place)] & end;
}
