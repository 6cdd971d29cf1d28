/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Takes results from the ring, and has the paths judge them. */
#include <errno.h>

#include "base/arithmetic.h"
#include "queue/copiers.h"
#include "queue/copy.h"
#include "queue/marks.h"
#include "queue/path.h"
#include "queue/proof.h"
#include "queue/results.h"
#include "queue/send.h"

static void judge(struct fdmabuf_queue *queue, struct request *request, int result)
{
	struct pair *pair = request->extent->use->pair;

	if (result == -EAGAIN || result == -EINTR)
		request_retry(request, -result);
	else if (result < 0 && handle_is_lost(pair->handle, -result))
		pair->is_lost = true;
	else if (request->sample)
		proof_complete(queue, request, result);
	else if (request->kind == PART_DIRECT)
		direct_complete(queue, request, result);
	else if (request->kind == PART_DIRECT_IO)
		direct_io_complete(queue, request, result);
	else if (request->kind != PART_SYNC)
		bounce_complete(queue, request, result);
	else if (result < 0)
		transfer_fail(request->transfer, request->extent->use, request->position, -result);
}

/* Returns true if the request is not complete. */
static bool is_unfinished(const struct request *request, int result)
{
	const struct pair *pair = request->extent->use->pair;

	if (request->transfer->error)
		return false;
	if (request->kind == PART_SYNC)
		return result == -EAGAIN || result == -EINTR || pair->is_lost;
	return request->position < request->end;
}

void results_note_completion(struct fdmabuf_queue *queue, struct request *request, int result)
{
	marks_check(queue, request, result);
	request->is_in_flight = false;
	request->transfer->in_flight--;
	request->extent->use->pair->in_flight--;
	queue->in_flight--;
}

/*
 * Records what arrived after the transfer had ended. A bounced read reaches the buffer only by the
 * copy, and a copy for a write does not reach the file.
 */
static void note_late_result(struct request *request, int result, bool was_copy)
{
	bool reads = request->transfer->direction == FDMABUF_READ;
	bool has_moved = was_copy ? reads : !reads || request->kind != PART_BOUNCE;

	if (result <= 0 || !has_moved || request->kind == PART_SYNC || request->sample)
		return;
	request->position = min_u64(request->end, request->position + result);
	request->extent->use->has_moved_directly |= request->kind == PART_DIRECT;
}

/* Frees a request that is complete, or has the rest sent. */
static void go_on(struct fdmabuf_queue *queue, struct request *request, int result)
{
	if (is_unfinished(request, result))
		request_list_append(&queue->ready, request);
	else
		send_free_request(queue, request);
}

static void complete(struct fdmabuf_queue *queue, struct request *request, int result)
{
	if (bounce_set_copy_in(queue, request, result)) {
		copiers_give(queue, request);
		return;
	}
	results_note_completion(queue, request, result);
	if (request->transfer->error)
		note_late_result(request, result, false);
	else
		judge(queue, request, result);
	go_on(queue, request, result);
}

static void complete_copy(struct fdmabuf_queue *queue, struct request *request)
{
	int64_t bytes = copy_take_result(request);

	results_note_completion(queue, request, bytes);
	if (request->transfer->error)
		note_late_result(request, bytes, true);
	else if (bytes < 0)
		transfer_stop(request->transfer, bytes);
	else
		bounce_copied(queue, request, bytes);
	go_on(queue, request, 0);
}

void results_take(struct fdmabuf_queue *queue)
{
	struct request *request;
	void *command;
	int result;

	/*
	 * Even with nothing in flight: what is left in the ring would keep its descriptor readable.
	 */
	while (ring_next(queue->ring, &command, &result))
		complete(queue, command, result);
	while ((request = copiers_next(queue)))
		complete_copy(queue, request);
}
