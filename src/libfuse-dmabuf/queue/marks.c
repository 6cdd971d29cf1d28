/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Puts marks into buffers, and looks for them. */
#include <string.h>
#include <sys/random.h>

#include "base/arithmetic.h"
#include "buffer/exporter.h"
#include "queue/marks.h"

/* Returns a number that no file has by chance: SplitMix64 from a random start. */
static uint64_t next_random(struct fdmabuf_queue *queue)
{
	uint64_t number;

	if (!queue->random && getrandom(&queue->random, sizeof(queue->random), GRND_NONBLOCK) < 0)
		queue->random = (uintptr_t)queue;
	number = queue->random += 0x9e3779b97f4a7c15;
	number = (number ^ number >> 30) * 0xbf58476d1ce4e5b9;
	number = (number ^ number >> 27) * 0x94d049bb133111eb;
	return number ^ number >> 31;
}

static uint64_t offset_of(const struct request *request, uint64_t position)
{
	const struct fdmabuf_transfer *t = request->transfer;
	size_t piece = request->piece;

	while (position >= piece_end(t, request->extent, piece))
		piece++;
	return piece_offset(t, piece, position);
}

static void put(struct fdmabuf_queue *queue, struct request *request, uint64_t position)
{
	struct fdmabuf_buffer *buffer = request->extent->use->pair->buffer;
	struct mark *mark = &request->marks[request->mark_count];

	*mark = (struct mark){
		.position = position,
		.offset = offset_of(request, position),
		.value = next_random(queue),
	};
	if (!fdmabuf_buffer_read(buffer, mark->offset, &mark->before, sizeof(mark->before)) &&
	    !fdmabuf_buffer_write(buffer, mark->offset, &mark->value, sizeof(mark->value)))
		request->mark_count++;
}

void marks_put(struct fdmabuf_queue *queue, struct request *request,
	       const struct ring_command *command)
{
	struct pair *pair = request->extent->use->pair;
	uint64_t block = request->extent->use->block_size, blocks, length = 0;

	if (queue->proof == FDMABUF_PROOF_NEVER || command->kind == RING_WRITE ||
	    pair->look[FDMABUF_READ] != LOOK_POSSIBLE)
		return;
	for (unsigned i = 0; i < command->count; i++)
		length += command->pieces[i].iov_len;
	blocks = length / block;
	if (!blocks)
		return;
	if (pair->until_look > length) {
		pair->until_look -= length;
		return;
	}
	pair->until_look = pair->buffer->exporter->look_interval;
	/* The first block finds any request that is lost, the other one a part that is. */
	put(queue, request, request->position);
	if (blocks > 1)
		put(queue, request, request->position +
				    (1 + next_random(queue) % (blocks - 1)) * block);
}

/* Returns true if the mark is in the buffer. */
static bool is_there(struct fdmabuf_buffer *buffer, const struct mark *mark)
{
	uint64_t found;

	return !fdmabuf_buffer_read(buffer, mark->offset, &found, sizeof(found)) &&
	       found == mark->value;
}

void marks_check(struct fdmabuf_queue *queue, struct request *request, int result)
{
	struct pair *pair = request->extent->use->pair;
	uint64_t reached = request->position + (result > 0 ? result : 0);
	bool is_lost = false;

	if (!request->mark_count)
		return;
	if (result > 0)
		buffer_flush(pair->buffer);
	for (unsigned i = 0; i < request->mark_count; i++) {
		const struct mark *mark = &request->marks[i];

		if (mark->position + sizeof(mark->value) <= reached) {
			is_lost |= is_there(pair->buffer, mark);
			queue->counters.bytes_proven += sizeof(mark->value);
		} else if (mark->position >= reached) {
			fdmabuf_buffer_write(pair->buffer, mark->offset, &mark->before,
					     sizeof(mark->before));
		}
	}
	request->mark_count = 0;
	if (is_lost)
		evidence_disprove(pair->evidence[FDMABUF_READ], pair->file, pair->buffer,
				  "seen when a read left a mark in its destination");
}
