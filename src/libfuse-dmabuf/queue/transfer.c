/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keeps account of transfers: their state, their errors, and what has not moved. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arithmetic.h"
#include "queue/request.h"

void transfer_stop(struct fdmabuf_transfer *t, int ret)
{
	if (t->error)
		return;
	t->error = ret;
	snprintf(t->error_text, sizeof(t->error_text), "%s", fdmabuf_error());
}

static bool is_waiting(const struct fdmabuf_transfer *t)
{
	for (size_t i = 0; i < t->use_count; i++)
		if (t->uses[i].deadline)
			return true;
	return false;
}

enum fdmabuf_state fdmabuf_transfer_state(const struct fdmabuf_transfer *t)
{
	if (!t->is_active)
		return FDMABUF_FINISHED;
	if (t->is_cancelled)
		return FDMABUF_CANCELLING;
	return is_waiting(t) ? FDMABUF_WAITING : FDMABUF_RUNNING;
}

static const char *cure_for(const struct fdmabuf_transfer *t, int error)
{
	switch (error) {
	case EINVAL:
		return ": was O_DIRECT switched off, or is the block size not right?";
	case ENODEV:
		return ": the NVMe device, or the device that owns the buffer, "
		       "is gone or switched off";
	case ENOSPC:
		return t->direction == FDMABUF_WRITE ? ": free some space, and write the rest" : "";
	case EDQUOT:
		return ": free some space, or ask for a larger quota, and write the rest";
	default:
		return "";
	}
}

void transfer_fail(struct fdmabuf_transfer *t, struct use *use, uint64_t position, int error)
{
	struct pair *pair = use->pair;

	if (handle_is_lost(pair->handle, error)) {
		pair->is_lost = true;
		return;
	}
	transfer_stop(t, fail(error, "%s: %s at offset %llu: %s%s", pair->file->path,
			      t->direction == FDMABUF_READ ? "reading" : "writing",
			      (unsigned long long)position, strerror(error), cure_for(t, error)));
}

void transfer_note_missing(struct fdmabuf_transfer *t, const struct extent *extent, uint64_t from,
			   uint64_t to)
{
	if (from >= to)
		return;
	for (size_t i = extent->first_range; i <= extent->last_range; i++) {
		size_t index = range_index(t, i);
		const struct fdmabuf_range *range = &t->ranges[index];

		if (range->file_offset < to && range->file_offset + range->length > from)
			t->done[index] = min_u64(t->done[index],
						 max_u64(from, range->file_offset) -
						 range->file_offset);
	}
}

void transfer_note_nothing(struct fdmabuf_transfer *t, const struct use *use)
{
	for (size_t i = 0; i < t->count; i++)
		if (&t->uses[t->use_of[i]] == use)
			t->done[i] = 0;
}

static enum fdmabuf_proven proof_of(const struct pair *pair, enum fdmabuf_direction direction)
{
	if (pair_is_disproved(pair, direction))
		return FDMABUF_DISPROVED;
	if (!pair_is_direct(pair, direction))
		return FDMABUF_NOT_DIRECT;
	if (evidence_is_proven(pair->evidence[direction]))
		return FDMABUF_PROVEN;
	return pair->look[direction] == LOOK_IMPOSSIBLE ? FDMABUF_UNPROVABLE : FDMABUF_NOT_PROVEN;
}

static void keep_reason(struct use *use, enum fdmabuf_direction direction)
{
	const struct pair *pair = use->pair;
	bool is_denied = pair->is_denied[direction] && !pair->is_bounce;
	const char *text = pair->reason_text;
	char disproof[REASON_TEXT_SIZE];

	use->is_bounce = !pair_is_direct(pair, direction);
	use->has_direct_io = use->is_bounce && pair_has_direct_io(pair);
	use->reason = pair->reason;
	use->proven = proof_of(pair, direction);
	if (pair_is_disproved(pair, direction)) {
		use->reason = FDMABUF_REASON_UNPROVEN;
		evidence_describe(pair->evidence[direction], disproof, sizeof(disproof));
		text = disproof;
	} else if (is_denied) {
		use->reason = FDMABUF_REASON_REFUSED;
		text = direction == FDMABUF_WRITE ? "the token does not allow writing" :
						    "the token does not allow reading";
	} else if (use->reason == FDMABUF_REASON_NONE && use->was_refused) {
		use->reason = FDMABUF_REASON_UNSUPPORTED;
		text = "the filesystem or the device refused a direct request, which was copied";
	}
	/* Without memory the reason has no text. */
	use->reason_text = *text ? strdup(text) : NULL;
}

void transfer_let_pairs_go(struct fdmabuf_transfer *t)
{
	for (size_t i = 0; i < t->use_count; i++) {
		struct use *use = &t->uses[i];

		keep_reason(use, t->direction);
		use->deadline = 0;
		pair_put(use->pair);
		use->pair = NULL;
	}
}

void transfer_release(struct fdmabuf_transfer *t)
{
	for (size_t i = 0; i < t->use_count; i++) {
		if (t->uses[i].pair)
			pair_put(t->uses[i].pair);
		free(t->uses[i].reason_text);
	}
	while (t->parked) {		/* only of a copy that a child has */
		struct request *parked = t->parked;

		t->parked = parked->next;
		free(parked);
	}
	free(t->uses);
	free(t->extents);
	for (size_t i = 0; i < t->sample_count; i++)
		free(t->samples[i].host);
	free(t->samples);
	free(t->order);
	free(t->shared);
	free(t);
}
