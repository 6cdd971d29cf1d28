/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Takes results from the ring, and has the paths judge them. */
#include <errno.h>

#include "base/arithmetic.h"
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

/* Records what arrived after the transfer had ended: a bounced read has not reached the buffer. */
static void note_late_result(struct request *request, int result)
{
	bool has_moved = request->kind == PART_DIRECT ||
			 request->transfer->direction == FDMABUF_WRITE;

	if (result <= 0 || !has_moved || request->kind == PART_SYNC || request->sample)
		return;
	request->position = min_u64(request->end, request->position + result);
	request->extent->use->has_moved_directly |= request->kind == PART_DIRECT;
}

static void complete(struct fdmabuf_queue *queue, struct request *request, int result)
{
	results_note_completion(queue, request, result);
	if (request->transfer->error)
		note_late_result(request, result);
	else
		judge(queue, request, result);
	if (is_unfinished(request, result))
		request_list_append(&queue->ready, request);
	else
		send_free_request(queue, request);
}

void results_take(struct fdmabuf_queue *queue)
{
	void *request;
	int result;

	/*
	 * Even with nothing in flight: what is left in the ring would keep its descriptor readable.
	 */
	while (ring_next(queue->ring, &request, &result))
		complete(queue, request, result);
}
