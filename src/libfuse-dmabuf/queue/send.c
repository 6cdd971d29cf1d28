/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Prepares requests by their path and gives them to the ring. */
#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "queue/access.h"
#include "queue/copiers.h"
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

/* What is to be done with a request that has been prepared. */
enum verdict {
	SEND_LATER,		/* the request has to wait, or its transfer has ended */
	SEND_COMMAND,
	SEND_COPY,
};

/* Returns room for PIECES_MAX pieces, or NULL if there is one piece, or no memory. */
static struct iovec *vector_of(struct fdmabuf_queue *queue, const struct request *request)
{
	if (request->extent->piece_count == 1)
		return NULL;
	if (!queue->vectors)
		queue->vectors = malloc(queue->depth * PIECES_MAX * sizeof(*queue->vectors));
	return queue->vectors ? queue->vectors + (request - queue->requests) * PIECES_MAX : NULL;
}

static enum verdict prepare_direct(struct fdmabuf_queue *queue, struct request *request,
				   struct ring_command *command)
{
	struct pair *pair = request->extent->use->pair;
	int ret = pair_need_token(pair);

	if (!ret && request->sample && !proof_fill(request)) {
		queue->has_more_to_do = true;
		return SEND_LATER;
	}
	if (!ret) {
		direct_prepare(queue, request, queue->has_vectors ? vector_of(queue, request) :
								   NULL, command);
		if (!request->sample)
			marks_put(queue, request, command);
		return SEND_COMMAND;
	}
	if (ret == -EBUSY)
		return SEND_LATER;
	/* Recovery asks again, and decides what becomes of the pair. */
	pair->token_has_ended = true;
	queue->has_more_to_do = true;
	return SEND_LATER;
}

static enum verdict stop(struct request *request, int ret)
{
	transfer_stop(request->transfer, ret);
	return SEND_LATER;
}

/* Returns false if other requests have all the bounce memory. */
static bool take_host(struct fdmabuf_queue *queue, struct request *request)
{
	if (request->host == NO_HOST && queue->host_free_count)
		request->host = queue->host_free[--queue->host_free_count];
	return request->host != NO_HOST;
}

static enum verdict prepare_bounce(struct fdmabuf_queue *queue, struct request *request,
				   bool is_cached, struct ring_command *command)
{
	int ret = host_memory_need(queue, request->extent->use->pair->buffer);

	if (ret)
		return stop(request, ret);
	if (!take_host(queue, request))
		return SEND_LATER;
	if (is_cached) {
		bounce_set_cached(queue, request);
		return SEND_COPY;
	}
	if (request->transfer->direction == FDMABUF_WRITE && !request->is_filled) {
		bounce_set_copy_out(queue, request);
		return SEND_COPY;
	}
	bounce_prepare(queue, request, command);
	return SEND_COMMAND;
}

/* Asks once for each run of bytes that the page cache has, or has not. */
static bool is_in_page_cache(struct request *request)
{
	struct fd_handle *handle = request->extent->use->pair->handle;

	if (request->transfer->direction == FDMABUF_WRITE)
		return false;
	if (request->position >= request->run_end)
		request->run_is_cached = handle_find_cached(handle, request->position,
							    request->end, &request->run_end);
	return request->run_is_cached;
}

static enum verdict prepare_without_token(struct fdmabuf_queue *queue, struct request *request,
					  struct ring_command *command)
{
	struct use *use = request->extent->use;
	bool is_cached = is_in_page_cache(request);
	int ret = access_need(request->transfer, use);

	if (ret)
		return stop(request, ret);
	if (is_cached && use->pair->buffer->has_pages) {
		bounce_set_cached(queue, request);
		return SEND_COPY;
	}
	if (is_cached || request->kind != PART_DIRECT_IO)
		return prepare_bounce(queue, request, is_cached, command);
	direct_io_prepare(request, vector_of(queue, request), command);
	return SEND_COMMAND;
}

/* Chooses another path for what would be direct, if no token may be used for it. */
static void choose_kind(const struct fdmabuf_queue *queue, struct request *request)
{
	const struct pair *pair = request->extent->use->pair;

	if (request->kind == PART_DIRECT &&
	    (pair->is_bounce || (!pair_is_direct(pair, request->transfer->direction) &&
				 queue->wanted_path != FDMABUF_DIRECT)))
		request->kind = pair_has_direct_io(pair) ? PART_DIRECT_IO : PART_BOUNCE;
}

static enum verdict prepare(struct fdmabuf_queue *queue, struct request *request,
			    struct ring_command *command)
{
	choose_kind(queue, request);
	if (request->kind == PART_SAMPLE_HOST) {
		proof_prepare_host(request, command);
		return SEND_COMMAND;
	}
	if (request->kind == PART_DIRECT || request->kind == PART_SAMPLE)
		return prepare_direct(queue, request, command);
	if (request->kind != PART_SYNC)
		return prepare_without_token(queue, request, command);
	*command = (struct ring_command){
		.kind = RING_SYNC, .fd = request->extent->use->pair->handle->plain_fd,
	};
	return SEND_COMMAND;
}

static void note_start(struct fdmabuf_queue *queue, struct request *request)
{
	struct pair *pair = request->extent->use->pair;

	request->is_in_flight = true;
	request->not_before = 0;
	request->transfer->in_flight++;
	pair->in_flight++;
	pair->last_use = ++pair->table->clock;
	queue->in_flight++;
}

static void send_command(struct fdmabuf_queue *queue, struct request *request,
			 const struct ring_command *command)
{
	ring_queue(queue->ring, command, request);
	queue->counters.requests++;
	if (request->was_submitted)
		queue->counters.retries++;
	request->was_submitted = true;
	request->is_filled = false;
}

/* Returns false if the request cannot be submitted now. */
static bool submit(struct fdmabuf_queue *queue, struct request *request)
{
	struct ring_command command;
	enum verdict verdict;

	if (use_needs_recovery(request->extent->use) || queue->broken ||
	    (request->not_before && request->not_before > monotonic_milliseconds()))
		return false;
	verdict = prepare(queue, request, &command);
	if (verdict == SEND_LATER)
		return false;
	note_start(queue, request);
	if (verdict == SEND_COMMAND) {
		send_command(queue, request, &command);
		return true;
	}
	copiers_give(queue, request);
	/* A write whose copy was made at once goes on at once. */
	queue->has_more_to_do |= queue->copied.first && request->copy.kind == COPY_OUT;
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
