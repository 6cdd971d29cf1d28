/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Cuts extents into requests, phase by phase. */
#include <stdlib.h>

#include "base/arithmetic.h"
#include "queue/cut.h"
#include "queue/proof.h"
#include "queue/recover.h"

static bool is_in_phase(const struct fdmabuf_transfer *t, const struct extent *extent)
{
	bool is_plain = extent->kind == PART_PLAIN;

	return t->phase == PHASE_BLOCKS ? !is_plain : t->phase == PHASE_PLAIN && is_plain;
}

static void next_extent(struct fdmabuf_transfer *t)
{
	t->extent++;
	if (t->extent < t->extent_count) {
		t->cursor = t->extents[t->extent].from;
		t->piece = t->extents[t->extent].first_piece;
	}
}

/* Skips what is done in another phase, or is beyond the end of the file. */
static struct extent *current_extent(struct fdmabuf_transfer *t)
{
	for (; t->extent < t->extent_count; next_extent(t)) {
		struct extent *extent = &t->extents[t->extent];

		if (!is_in_phase(t, extent))
			continue;
		if (t->cursor >= extent->use->eof) {
			transfer_note_missing(t, extent, t->cursor, extent->to);
			continue;
		}
		if (t->cursor < extent->to)
			return extent;
	}
	return NULL;
}

void cut_from_start(struct fdmabuf_transfer *t)
{
	t->extent = 0;
	t->piece = 0;
	t->cursor = t->extent_count ? t->extents->from : 0;
}

void cut_again(struct fdmabuf_transfer *t)
{
	t->phase = PHASE_BLOCKS;
	t->moved = 0;
	cut_from_start(t);
}

void cut_next_phase(struct fdmabuf_transfer *t)
{
	t->phase++;
	if (t->phase == PHASE_PLAIN && t->direction == FDMABUF_READ)
		t->phase = PHASE_DONE;
	if (t->phase == PHASE_SYNC && !(t->flags & FDMABUF_SYNC))
		t->phase = PHASE_DONE;
	cut_from_start(t);
}

static struct request *new_request(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t,
				   struct extent *extent, enum part_kind kind)
{
	struct request *request = request_list_take(&queue->free);

	request->transfer = t;
	request->extent = extent;
	request->kind = kind;
	request->tries = 0;
	request->not_before = 0;
	request->was_submitted = request->is_in_flight = request->is_vector = false;
	request->is_copying = request->is_filled = false;
	request->run_end = 0;
	request->host = NO_HOST;
	request->sample = NULL;
	request->mark_count = 0;
	t->requests++;
	return request;
}

/* Requests end at multiples of the chunk: all but the first and the last of an extent are whole. */
static uint64_t chunk_end(const struct fdmabuf_queue *queue, const struct extent *extent,
			  uint64_t position)
{
	const struct pair *pair = extent->use->pair;
	bool is_direct = extent->kind == PART_DIRECT &&
			 (!pair->is_bounce || pair_has_direct_io(pair));
	uint64_t chunk = is_direct ? queue->chunk : queue->host_chunk;

	return min_u64(extent->to, (position / chunk + 1) * chunk);
}

static struct request *cut_request(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t)
{
	struct extent *extent = current_extent(t);
	struct request *request;
	unsigned pieces = 0;

	if (!extent || use_needs_recovery(extent->use))
		return NULL;
	request = new_request(queue, t, extent, extent->kind);
	request->position = t->cursor;
	request->piece = t->piece;
	request->end = chunk_end(queue, extent, t->cursor);
	while (t->cursor < request->end) {
		if (++pieces > PIECES_MAX)
			break;
		t->cursor = min_u64(request->end, piece_end(t, extent, t->piece));
		if (t->cursor == piece_end(t, extent, t->piece))
			t->piece++;
	}
	request->end = t->cursor;
	return request;
}

/*
 * Makes a file durable: one request for each file, on behalf of the first extent that was written
 * to it.
 */
static struct request *sync_request(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t)
{
	while (t->extent < t->extent_count) {
		struct extent *extent = &t->extents[t->extent];
		struct request *request;

		if (extent != t->extents && extent->use->pair->file == extent[-1].use->pair->file) {
			t->extent++;
			continue;
		}
		if (use_needs_recovery(extent->use))
			return NULL;
		t->extent++;
		request = new_request(queue, t, extent, PART_SYNC);
		request->piece = extent->first_piece;
		request->position = request->end = extent->to;
		return request;
	}
	return NULL;
}

static struct request *sample_request(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t)
{
	enum part_kind kind;
	struct sample *sample = proof_next(t, &kind);
	struct request *request;

	if (!sample || use_needs_recovery(sample->extent.use))
		return NULL;
	request = new_request(queue, t, &sample->extent, kind);
	request->sample = sample;
	request->position = sample->extent.from;
	request->end = sample->extent.to;
	request->piece = sample->extent.first_piece;
	sample->has_request = true;
	return request;
}

bool cut_has_more(struct fdmabuf_transfer *t)
{
	enum part_kind kind;

	if (t->phase == PHASE_PROOF)
		return proof_next(t, &kind) != NULL;
	return t->phase == PHASE_SYNC ? t->extent < t->extent_count : current_extent(t) != NULL;
}

/* Takes back a request that had to wait and can go on now. */
static struct request *parked_request(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t)
{
	struct request *parked = request_unpark(t), *request;

	if (!parked)
		return NULL;
	request = request_list_take(&queue->free);
	*request = *parked;
	free(parked);
	return request;
}

struct request *cut_next_request(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t)
{
	struct request *request;

	if (t->error || t->phase == PHASE_DONE || !queue->free.first)
		return NULL;
	request = parked_request(queue, t);
	if (request)
		return request;
	switch (t->phase) {
	case PHASE_PROOF:
		return sample_request(queue, t);
	case PHASE_SYNC:
		return sync_request(queue, t);
	default:
		return cut_request(queue, t);
	}
}

void cut_note_rest(struct fdmabuf_transfer *t)
{
	for (size_t i = 0; i < t->extent_count; i++) {
		const struct extent *extent = &t->extents[i];
		bool was_cut = extent->kind == PART_PLAIN ? t->phase > PHASE_PLAIN :
							    t->phase > PHASE_BLOCKS;

		if (was_cut || (is_in_phase(t, extent) && i < t->extent))
			continue;
		transfer_note_missing(t, extent, is_in_phase(t, extent) && i == t->extent ?
				      t->cursor : extent->from, extent->to);
	}
}
