/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Prepares requests by their path and gives them to the ring. */
#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "queue/cut.h"
#include "queue/host-memory.h"
#include "queue/lists.h"
#include "queue/marks.h"
#include "queue/path.h"
#include "queue/proof.h"
#include "queue/recover.h"
#include "queue/send.h"

/* Lets others use the place of a request. */
static void free_place(struct fdmabuf_queue *queue, struct request *request)
{
	if (request->host != NO_HOST)
		queue->host_free[queue->host_free_count++] = request->host;
	request_list_append(&queue->free, request);
}

static void end_request(struct request *request)
{
	if (request->sample)
		proof_end_request(request);
	else
		transfer_note_missing(request->transfer, request->extent, request->position,
				      request->end);
	request->transfer->requests--;
}

void send_free_request(struct fdmabuf_queue *queue, struct request *request)
{
	end_request(request);
	free_place(queue, request);
}

/* Keeps a request that cannot be submitted now. */
static void keep_request(struct fdmabuf_queue *queue, struct request *request)
{
	/* The transfer may have ended just now: all its requests are freed in the next pass. */
	queue->has_more_to_do |= request->transfer->error != 0;
	if (use_needs_recovery(request->extent->use) && request_park(request))
		free_place(queue, request);
	else
		request_list_append(&queue->ready, request);
}

void send_free_parked(struct fdmabuf_transfer *t)
{
	while (t->parked) {
		struct request *parked = t->parked;

		t->parked = parked->next;
		end_request(parked);
		free(parked);
	}
}

static struct iovec *vector_of(struct fdmabuf_queue *queue, const struct request *request)
{
	bool is_one = request->extent->piece_count == 1;

	if (is_one || !queue->has_vectors)
		return NULL;
	if (!queue->vectors)
		queue->vectors = malloc(queue->depth * PIECES_MAX * sizeof(*queue->vectors));
	return queue->vectors ? queue->vectors + (request - queue->requests) * PIECES_MAX : NULL;
}

static uint64_t direct_length(const struct ring_command *command)
{
	uint64_t length = 0;

	for (unsigned i = 0; i < command->count; i++)
		length += command->pieces[i].iov_len;
	return length;
}

/* Returns false if the request has to wait, or its transfer has ended. */
static bool prepare_direct(struct fdmabuf_queue *queue, struct request *request,
			   struct ring_command *command)
{
	struct pair *pair = request->extent->use->pair;
	int ret = pair_need_token(pair);

	if (!ret && request->sample && !proof_fill(request)) {
		queue->has_more_to_do = true;
		return false;
	}
	if (!ret) {
		direct_prepare(queue, request, vector_of(queue, request), command);
		if (!request->sample)
			marks_put(queue, request, direct_length(command));
		return true;
	}
	if (ret == -EBUSY)
		return false;
	/* Recovery asks again, and decides what becomes of the pair. */
	pair->token_has_ended = true;
	queue->has_more_to_do = true;
	return false;
}

static bool prepare_bounce(struct fdmabuf_queue *queue, struct request *request,
			   struct ring_command *command)
{
	struct pair *pair = request->extent->use->pair;
	int ret = host_memory_need(queue, pair->buffer);

	if (!ret && request->host == NO_HOST) {
		if (!queue->host_free_count)
			return false;
		request->host = queue->host_free[--queue->host_free_count];
	}
	if (!ret)
		ret = bounce_prepare(queue, request, command);
	if (ret)
		transfer_stop(request->transfer, ret);
	return !ret;
}

static bool prepare(struct fdmabuf_queue *queue, struct request *request,
		    struct ring_command *command)
{
	const struct pair *pair = request->extent->use->pair;

	if (request->kind == PART_SAMPLE_HOST) {
		proof_prepare_host(request, command);
		return true;
	}
	if (request->kind == PART_DIRECT &&
	    (pair->is_bounce || (!pair_is_direct(pair, request->transfer->direction) &&
				 queue->wanted_path != FDMABUF_DIRECT)))
		request->kind = PART_BOUNCE;
	if (request->kind == PART_DIRECT || request->kind == PART_SAMPLE)
		return prepare_direct(queue, request, command);
	if (request->kind != PART_SYNC)
		return prepare_bounce(queue, request, command);
	*command = (struct ring_command){ .kind = RING_SYNC, .fd = pair->handle->plain_fd };
	return true;
}

/* Returns false if the request cannot be submitted now. */
static bool submit(struct fdmabuf_queue *queue, struct request *request)
{
	struct pair *pair = request->extent->use->pair;
	struct ring_command command;

	if (use_needs_recovery(request->extent->use) || queue->broken ||
	    (request->not_before && request->not_before > monotonic_milliseconds()) ||
	    !prepare(queue, request, &command))
		return false;
	ring_queue(queue->ring, &command, request);
	queue->counters.requests++;
	if (request->was_submitted)
		queue->counters.retries++;
	request->was_submitted = request->is_in_flight = true;
	request->not_before = 0;
	request->transfer->in_flight++;
	pair->in_flight++;
	pair->last_use = ++pair->table->clock;
	queue->in_flight++;
	return true;
}

void send_ready(struct fdmabuf_queue *queue)
{
	struct request_list waiting = queue->ready;
	struct request *request;

	if (!waiting.first)
		return;
	if (waiting.end == &queue->ready.first)
		waiting.end = &waiting.first;
	request_list_init(&queue->ready);
	while ((request = request_list_take(&waiting))) {
		if (request->transfer->error || proof_is_moot(request))
			send_free_request(queue, request);
		else if (!submit(queue, request))
			keep_request(queue, request);
	}
}

void send_new(struct fdmabuf_queue *queue)
{
	struct fdmabuf_transfer **link = &queue->active;	/* those before have no more */

	while (queue->free.first && *link) {
		struct fdmabuf_transfer *t = *link;
		struct request *request = cut_next_request(queue, t);

		if (!request) {
			link = &t->next;
			continue;
		}
		if (proof_is_moot(request))
			send_free_request(queue, request);
		else if (!submit(queue, request))
			keep_request(queue, request);
		if (t->next) {
			list_remove(&queue->active_end, t);
			list_append(&queue->active_end, t);
		}
	}
}
