/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Cuts ranges into parts that move in one way, and joins what is contiguous. */
#include <stdlib.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "queue/extents.h"
#include "queue/shared-blocks.h"

/* Counts extents and pieces or, in a second pass, makes them. */
struct builder {
	struct fdmabuf_transfer *t;
	bool makes;
	size_t extents, pieces;
	bool has_last;
	struct extent last;		/* the extent that the next part may be joined to */
	uint64_t shift;			/* of its last piece: buffer offset minus file offset */
	size_t first_range, last_range;	/* of the ranges that are being cut */
	bool copies;			/* some part is not direct */
};

static void store_last(struct builder *b)
{
	if (b->has_last && b->makes)
		b->t->extents[b->extents - 1] = b->last;
}

static void add_piece(struct builder *b, uint64_t from, uint64_t shift)
{
	if (b->makes)
		b->t->pieces[b->pieces] = (struct piece){ from, from + shift };
	b->pieces++;
	b->shift = shift;
}

static void add_extent(struct builder *b, struct use *use, enum part_kind kind, uint64_t from,
		       uint64_t to, uint64_t shift)
{
	store_last(b);
	b->has_last = true;
	b->last = (struct extent){
		.use = use,
		.kind = kind,
		.from = from,
		.to = to,
		.first_piece = b->pieces,
		.piece_count = 1,
		.first_range = b->first_range,
		.last_range = b->last_range,
	};
	b->extents++;
	add_piece(b, from, shift);
}

/* Adds a part of the file, which is contiguous in the buffer as well. */
static void add_part(struct builder *b, struct use *use, enum part_kind kind, uint64_t from,
		     uint64_t to, uint64_t shift)
{
	struct extent *last = &b->last;
	bool is_same = b->has_last && last->use == use && last->kind == kind;
	bool is_next = is_same && from == last->to;
	/* Whole blocks around two ranges can be the same blocks. */
	bool overlaps = is_same && b->t->flags & FDMABUF_WHOLE_BLOCKS && kind == PART_DIRECT &&
			from >= last->from && from < last->to;

	if (from >= to)
		return;
	b->copies |= kind != PART_DIRECT;
	if ((is_next || overlaps) && b->shift == shift) {
		last->to = max_u64(last->to, to);
	} else if (is_next && (kind != PART_DIRECT || b->t->queue->has_vectors)) {
		last->piece_count++;
		last->to = to;
		add_piece(b, from, shift);
	} else {
		add_extent(b, use, kind, from, to, shift);
		return;
	}
	last->last_range = b->last_range;
}

uint64_t extents_write_block(uint32_t block_size)
{
	return max_u64(block_size, getpagesize());
}

static void add_write(struct builder *b, struct use *use, enum part_kind kind, uint64_t from,
		      uint64_t to, uint64_t shift)
{
	uint64_t block = extents_write_block(use->pair->file->block_size);
	uint64_t first = min_u64(align_up(from, block), to);
	uint64_t last = max_u64(align_down(to, block), first);

	if (!use->pair->handle->is_direct)
		first = last = to;
	add_part(b, use, PART_PLAIN, from, first, shift);
	add_part(b, use, kind, first, last, shift);
	add_part(b, use, PART_PLAIN, last, to, shift);
}

static void add_direct_read(struct builder *b, struct use *use, uint64_t from, uint64_t to,
			    uint64_t shift)
{
	uint64_t block = use->pair->file->block_size;
	uint64_t first = align_up(from, block), last = align_down(to, block);

	if (b->t->flags & FDMABUF_WHOLE_BLOCKS) {
		/* The first block always fits: both offsets are equal modulo the block size. */
		if (!shared_blocks_has(b->t, b->first_range, SHARED_FIRST))
			first = align_down(from, block);
		if (!shared_blocks_has(b->t, b->last_range, SHARED_LAST) &&
		    align_up(to, block) + shift <= use->pair->buffer->size)
			last = align_up(to, block);
	}
	if (first >= last) {
		add_part(b, use, PART_BOUNCE, from, to, shift);
		return;
	}
	add_part(b, use, PART_BOUNCE, from, first, shift);
	add_part(b, use, PART_DIRECT, first, last, shift);
	add_part(b, use, PART_BOUNCE, last, to, shift);
}

static void add_run(struct builder *b, struct use *use, uint64_t from, uint64_t to, uint64_t shift)
{
	const struct pair *pair = use->pair;
	bool is_direct = (pair_is_direct(pair, b->t->direction) || pair_has_direct_io(pair)) &&
			 shift % pair->file->block_size == 0;

	if (b->t->direction == FDMABUF_WRITE)
		add_write(b, use, is_direct ? PART_DIRECT : PART_BOUNCE, from, to, shift);
	else if (is_direct)
		add_direct_read(b, use, from, to, shift);
	else
		add_part(b, use, PART_BOUNCE, from, to, shift);
}

/* Joins ranges that are contiguous in file and buffer, and cuts the rest. */
static void add_ranges(struct builder *b)
{
	struct fdmabuf_transfer *t = b->t;
	struct use *use = t->uses;

	for (size_t i = 0; i < t->count;) {
		const struct fdmabuf_range *first = range_at(t, i);
		uint64_t shift = first->buffer_offset - first->file_offset;
		uint64_t end = first->file_offset + first->length;

		if (i && !is_same_pair(range_at(t, i - 1), first))
			use++;
		b->first_range = b->last_range = i++;
		if (!first->length)	/* an empty range has no whole blocks either */
			continue;
		for (; i < t->count && is_same_pair(first, range_at(t, i)); i++) {
			const struct fdmabuf_range *next = range_at(t, i);

			if (!next->length)
				continue;
			if (next->file_offset != end || next->buffer_offset != end + shift)
				break;
			end += next->length;
			b->last_range = i;
		}
		add_run(b, use, first->file_offset, end, shift);
	}
	store_last(b);
}

/* FDMABUF_DIRECT promises that the CPU copies nothing. */
static int fail_copy(const struct fdmabuf_transfer *t)
{
	for (size_t i = 0; i < t->count; i++) {
		const struct fdmabuf_range *range = range_at(t, i);
		uint64_t block = range->file->block_size;

		if (range->length && (range->buffer_offset - range->file_offset) % block)
			return fail(EINVAL, "%s: the offsets in file and buffer (%llu and %llu) "
				    "must be equal modulo the block size of %llu for a direct "
				    "transfer",
				    range->file->path, (unsigned long long)range->file_offset,
				    (unsigned long long)range->buffer_offset,
				    (unsigned long long)block);
	}
	if (t->direction == FDMABUF_WRITE)
		return fail(EINVAL, "%s: a range has partial blocks that would have to be copied: "
			    "align the range to %d bytes", t->ranges->file->path, getpagesize());
	if (t->shared)
		return fail(EINVAL, "%s: ranges from different places end in the same block of the "
			    "buffer: place them in blocks of %u bytes of their own for a direct "
			    "transfer",
			    t->ranges->file->path, t->ranges->file->block_size);
	return fail(EINVAL, "%s: a range has partial blocks of %u bytes that would have to be "
		    "copied: align the range, or allow FDMABUF_WHOLE_BLOCKS and leave room for "
		    "whole blocks in the buffer", t->ranges->file->path,
		    t->ranges->file->block_size);
}

/* A copy that is impossible fails before anything is moved. */
static int prepare_copies(struct fdmabuf_transfer *t)
{
	for (size_t i = 0; i < t->extent_count; i++) {
		int ret = t->extents[i].kind == PART_DIRECT ?
			  0 : buffer_prepare_copy(t->extents[i].use->pair->buffer);

		if (ret)
			return ret;
	}
	return 0;
}

int extents_make(struct fdmabuf_transfer *t)
{
	struct builder counting = { .t = t }, making = { .t = t, .makes = true };

	add_ranges(&counting);
	if (counting.copies && t->queue->wanted_path == FDMABUF_DIRECT)
		return fail_copy(t);
	t->extents = malloc(counting.extents * sizeof(*t->extents) +
			    counting.pieces * sizeof(*t->pieces) + 1);
	if (!t->extents)
		return fail(ENOMEM, "out of memory");
	t->pieces = (struct piece *)(t->extents + counting.extents);
	t->extent_count = counting.extents;
	add_ranges(&making);
	for (size_t i = 0; i < t->extent_count; i++)
		t->total += t->extents[i].to - t->extents[i].from;
	return counting.copies ? prepare_copies(t) : 0;
}
