/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Chooses samples, moves them by both paths and compares. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/arithmetic.h"
#include "queue/extents.h"
#include "queue/proof.h"

/* A file that is written to meanwhile differs, too, but not every time. */
#define TRIES_MAX 4u

/* Of different devices in one transfer. What has no proof in this one has it in the next. */
#define PROOFS_MAX 16u

/* ------------------------------------------------------------------ choice */

/* A block: what is mapped to the wrong place is at least as large. */
static uint64_t sample_size(const struct use *use, enum fdmabuf_direction direction)
{
	return direction == FDMABUF_WRITE ? extents_write_block(use->block_size) :
					    use->block_size;
}

/* Samples stand one after the other in an extent, the last one being what is left. */
static uint64_t count_samples(const struct fdmabuf_transfer *t, const struct extent *extent)
{
	return max_u64(1, (extent->to - extent->from) / sample_size(extent->use, t->direction));
}

static bool needs_proof(const struct fdmabuf_transfer *t, const struct use *use)
{
	const struct pair *pair = use->pair;

	if (t->queue->proof == FDMABUF_PROOF_NEVER || use->is_covered ||
	    !pair_is_direct(pair, t->direction))
		return false;
	return t->queue->proof == FDMABUF_PROOF_ALWAYS ?
	       pair->proven_blocks[t->direction] < EVIDENCE_BLOCKS :
	       !evidence_is_proven(pair->evidence[t->direction]);
}

/* One proof is for all uses with the same devices, or with FDMABUF_PROOF_ALWAYS for one use. */
static bool is_of(const struct fdmabuf_transfer *t, const struct use *first, const struct use *use)
{
	return use == first ||
	       (t->queue->proof == FDMABUF_PROOF_ONCE && needs_proof(t, use) &&
		use->pair->evidence[t->direction] == first->pair->evidence[t->direction]);
}

/* Returns the place of a sample in the buffer. */
static uint64_t place_of(const struct fdmabuf_transfer *t, const struct sample *sample)
{
	return piece_offset(t, sample->extent.first_piece, sample->extent.from);
}

static bool overlaps_another(const struct fdmabuf_transfer *t, const struct sample *sample)
{
	uint64_t length = sample->extent.to - sample->extent.from, offset = place_of(t, sample);

	for (const struct sample *other = t->samples; other < sample; other++) {
		uint64_t at = place_of(t, other);

		if (other->extent.use->pair->buffer == sample->extent.use->pair->buffer &&
		    offset < at + (other->extent.to - other->extent.from) && at < offset + length)
			return true;
	}
	return false;
}

/* Adds sample @number of an extent, unless another one is at the same place of the buffer. */
static void add_sample(struct fdmabuf_transfer *t, const struct extent *extent, uint64_t number)
{
	struct sample *sample = &t->samples[t->sample_count];
	uint64_t size = sample_size(extent->use, t->direction);
	uint64_t from = extent->from + number * size;
	size_t piece = extent->first_piece;

	while (from >= piece_end(t, extent, piece))
		piece++;
	*sample = (struct sample){ .extent = *extent };
	sample->extent.from = from;
	sample->extent.to = min_u64(from + size, piece_end(t, extent, piece));
	sample->extent.first_piece = piece;
	sample->extent.piece_count = 1;
	sample->length = sample->extent.to - from;
	if (!overlaps_another(t, sample))
		t->sample_count++;
}

/* Chooses the samples of @first and the uses with the same devices, spread over all of them. */
static void choose_for(struct fdmabuf_transfer *t, struct use *first)
{
	uint64_t total = 0, passed = 0, count, chosen = 0;

	for (size_t i = 0; i < t->extent_count; i++)
		if (t->extents[i].kind == PART_DIRECT && is_of(t, first, t->extents[i].use))
			total += count_samples(t, &t->extents[i]);
	count = min_u64(total, EVIDENCE_BLOCKS);
	for (size_t i = 0; i < t->extent_count && chosen < count; i++) {
		const struct extent *extent = &t->extents[i];
		uint64_t here, next;

		if (extent->kind != PART_DIRECT || !is_of(t, first, extent->use))
			continue;
		here = count_samples(t, extent);
		while (chosen < count) {
			next = count > 1 ? chosen * (total - 1) / (count - 1) : 0;
			if (next >= passed + here)
				break;
			add_sample(t, extent, next - passed);
			chosen++;
		}
		passed += here;
	}
	for (size_t i = 0; i < t->use_count; i++)
		t->uses[i].is_covered |= is_of(t, first, &t->uses[i]);
}

/* Returns true if the buffer can be looked into, and what was written can be read back. */
static bool can_look(const struct pair *pair, enum fdmabuf_direction direction)
{
	return !buffer_prepare_copy(pair->buffer) &&
	       (direction == FDMABUF_READ || handle_reader(pair->handle) >= 0);
}

/* Finds out what can be looked after; marks need that, too. */
static void check_looks(struct fdmabuf_transfer *t)
{
	enum fdmabuf_direction direction = t->direction;

	for (size_t i = 0; i < t->use_count; i++) {
		struct pair *pair = t->uses[i].pair;

		if (t->queue->proof == FDMABUF_PROOF_NEVER ||
		    pair->look[direction] != LOOK_UNKNOWN || !pair_is_direct(pair, direction))
			continue;
		pair->look[direction] = can_look(pair, direction) ? LOOK_POSSIBLE : LOOK_IMPOSSIBLE;
	}
}

int proof_choose(struct fdmabuf_transfer *t)
{
	size_t proofs = 0;

	t->phase = PHASE_BLOCKS;
	check_looks(t);
	for (size_t i = 0; i < t->use_count; i++) {
		struct use *use = &t->uses[i];

		use->is_covered = use->pair->look[t->direction] != LOOK_POSSIBLE;
		proofs += needs_proof(t, use);
	}
	if (!proofs)
		return 0;
	if (t->queue->proof == FDMABUF_PROOF_ONCE)
		proofs = min_u64(proofs, PROOFS_MAX);
	t->samples = calloc(proofs * EVIDENCE_BLOCKS, sizeof(*t->samples));
	if (!t->samples)
		return fail(ENOMEM, "out of memory");
	for (size_t i = 0; i < t->use_count && proofs; i++) {
		if (!needs_proof(t, &t->uses[i]))
			continue;
		choose_for(t, &t->uses[i]);
		proofs--;
	}
	if (t->sample_count)
		t->phase = PHASE_PROOF;
	return 0;
}

/* ---------------------------------------------------------------- requests */

/* Without memory the sample says nothing. */
static void allocate(struct sample *sample)
{
	uint64_t size = sample->extent.to - sample->extent.from;

	/* O_DIRECT wants memory that is aligned like the file. */
	sample->host = aligned_alloc(sample->extent.use->block_size, 2 * size);
	if (sample->host)
		sample->other = sample->host + size;
	else
		sample->step = SAMPLE_DONE;
}

struct sample *proof_next(struct fdmabuf_transfer *t, enum part_kind *kind)
{
	bool reads = t->direction == FDMABUF_READ;

	for (size_t i = 0; i < t->sample_count; i++) {
		struct sample *sample = &t->samples[i];

		if (!sample->host && sample->step != SAMPLE_DONE)
			allocate(sample);
		if (sample->has_request || sample->step == SAMPLE_DONE)
			continue;
		*kind = (sample->step == SAMPLE_SECOND) == reads ? PART_SAMPLE : PART_SAMPLE_HOST;
		if (sample->step == SAMPLE_HEAL)
			*kind = PART_SAMPLE_HOST;
		return sample;
	}
	return NULL;
}

bool proof_is_moot(struct request *request)
{
	struct sample *sample = request->sample;

	enum fdmabuf_direction direction = request->transfer->direction;

	if (!sample)
		return false;
	if (request->kind != PART_SAMPLE || pair_is_direct(request->extent->use->pair, direction))
		return sample->step == SAMPLE_DONE;
	/* The file has what an earlier try has written. */
	sample->step = direction == FDMABUF_WRITE && sample->tries ? SAMPLE_HEAL : SAMPLE_DONE;
	return true;
}

bool proof_fill(struct request *request)
{
	struct sample *sample = request->sample;

	if (request->transfer->direction == FDMABUF_WRITE)
		return true;
	for (size_t i = 0; i < sample->length; i++)
		sample->other[i] = ~sample->host[i];
	if (!fdmabuf_buffer_write(request->extent->use->pair->buffer,
				  place_of(request->transfer, sample), sample->other,
				  sample->length))
		return true;
	sample->step = SAMPLE_DONE;
	return false;
}

void proof_prepare_host(struct request *request, struct ring_command *command)
{
	struct fd_handle *handle = request->extent->use->pair->handle;
	struct sample *sample = request->sample;
	bool heals = sample->step == SAMPLE_HEAL;

	request->one.iov_base = heals ? sample->other : sample->host;
	request->one.iov_len = request->end - request->position;
	*command = (struct ring_command){
		.kind = heals ? RING_WRITE : RING_READ,
		.fd = heals ? handle->fd : handle_reader(handle),
		.file_offset = request->position,
		.slot = RING_SLOT_NONE,
		.pieces = &request->one,
		.count = 1,
	};
}

void proof_end_request(struct request *request)
{
	struct sample *sample = request->sample;

	sample->has_request = false;
	if (sample->step != SAMPLE_DONE)
		return;
	free(sample->host);
	sample->host = sample->other = NULL;
}

/* ----------------------------------------------------------------- results */

static bool is_zero(const unsigned char *bytes, size_t length)
{
	return !*bytes && !memcmp(bytes, bytes + 1, length - 1);
}

/* Looks into the buffer, after the device that owns it sees what other devices have done. */
static int look(struct request *request)
{
	struct fdmabuf_buffer *buffer = request->extent->use->pair->buffer;
	struct sample *sample = request->sample;
	int ret = request->transfer->direction == FDMABUF_READ ? buffer_flush(buffer) : 0;

	return ret ? ret : fdmabuf_buffer_read(buffer, place_of(request->transfer, sample),
					       sample->other, sample->length);
}

/* Compares what is in the buffer with what is in the file. */
static void compare(struct fdmabuf_queue *queue, struct request *request)
{
	struct sample *sample = request->sample;
	struct pair *pair = request->extent->use->pair;
	enum fdmabuf_direction direction = request->transfer->direction;

	if (look(request)) {
		sample->step = SAMPLE_DONE;
		return;
	}
	queue->counters.bytes_proven += sample->length;
	if (!memcmp(sample->host, sample->other, sample->length)) {
		/* The kernel itself may have written zeros, for a hole. */
		sample->is_right = !is_zero(sample->host, sample->length);
		sample->step = SAMPLE_DONE;
		return;
	}
	if (++sample->tries < TRIES_MAX && pair_is_direct(pair, direction)) {
		sample->step = SAMPLE_FIRST;
		sample->length = request->end - request->extent->from;
		return;
	}
	evidence_disprove(pair->evidence[direction], pair->file, pair->buffer,
			  direction == FDMABUF_READ ? "seen when blocks were read twice" :
						      "seen when blocks were read back");
	sample->step = direction == FDMABUF_WRITE ? SAMPLE_HEAL : SAMPLE_DONE;
}

static void complete_host(struct fdmabuf_queue *queue, struct request *request, int result)
{
	struct sample *sample = request->sample;
	bool reads = request->transfer->direction == FDMABUF_READ;

	if (sample->step == SAMPLE_HEAL && result < (int)sample->length) {
		transfer_fail(request->transfer, request->extent->use, request->position,
			      result < 0 ? -result : EIO);
		return;
	}
	/* The rest of the transfer meets the end of the file, and errors of the file, itself. */
	if (sample->step == SAMPLE_HEAL || result <= 0) {
		sample->step = SAMPLE_DONE;
		return;
	}
	sample->length = min_u64(sample->length, result);
	if (reads)
		sample->step = SAMPLE_SECOND;
	else
		compare(queue, request);
}

static void complete_direct(struct fdmabuf_queue *queue, struct request *request, int result)
{
	struct sample *sample = request->sample;
	bool reads = request->transfer->direction == FDMABUF_READ;

	/* A hole, or an error that the rest of the transfer meets itself. */
	if (result <= 0 || (!reads && result < (int)sample->length)) {
		sample->step = SAMPLE_DONE;
		return;
	}
	sample->length = min_u64(sample->length, result);
	if (reads)
		compare(queue, request);
	else
		sample->step = SAMPLE_SECOND;
}

void proof_complete(struct fdmabuf_queue *queue, struct request *request, int result)
{
	struct pair *pair = request->extent->use->pair;

	if (request->kind == PART_SAMPLE && result == -ESTALE) {
		/* Recovery gets a new token, unless there is one already. */
		pair->token_has_ended |= request->serial == pair->serial;
		return;
	}
	if (request->kind == PART_SAMPLE)
		complete_direct(queue, request, result);
	else
		complete_host(queue, request, result);
	request->position = request->end;
}

/* ----------------------------------------------------------------- verdict */

int proof_fail(const struct pair *pair, enum fdmabuf_direction direction)
{
	char text[REASON_TEXT_SIZE];

	evidence_describe(pair->evidence[direction], text, sizeof(text));
	return fail(EIO, "%s: %s: allow bounce, and look at the IOMMU and at PCI switches between "
		    "the devices", pair->file->path, text);
}

void proof_conclude(struct fdmabuf_transfer *t)
{
	for (size_t i = 0; i < t->sample_count; i++) {
		struct pair *pair = t->samples[i].extent.use->pair;

		if (pair_is_disproved(pair, t->direction)) {
			if (t->queue->wanted_path == FDMABUF_DIRECT)
				transfer_stop(t, proof_fail(pair, t->direction));
		} else if (t->samples[i].is_right) {
			evidence_add(pair->evidence[t->direction], 1);
			pair->proven_blocks[t->direction]++;
		}
	}
}

bool proof_redo(struct fdmabuf_transfer *t)
{
	bool redo = false;

	for (size_t i = 0; i < t->use_count; i++) {
		struct use *use = &t->uses[i];

		if (!use->has_moved_directly || !pair_is_disproved(use->pair, t->direction))
			continue;
		use->has_moved_directly = false;
		if (t->queue->wanted_path == FDMABUF_DIRECT)
			transfer_stop(t, proof_fail(use->pair, t->direction));
		if (t->error)
			transfer_note_nothing(t, use);
		redo = true;
	}
	return redo && !t->error;
}
