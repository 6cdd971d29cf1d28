/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keeps requests in flight. Each pass takes results, which the paths judge, helps transfers whose
 * token or server has ended, sends what can be sent, and ends transfers that are complete.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/arithmetic.h"
#include "common/clock.h"
#include "queue/copiers.h"
#include "queue/cut.h"
#include "queue/finish.h"
#include "queue/lists.h"
#include "queue/loop.h"
#include "queue/recover.h"
#include "queue/results.h"
#include "queue/send.h"

/* ms between two calls of a progress function while nothing completes. */
#define PROGRESS_INTERVAL 100

void loop_add(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t)
{
	list_append(&queue->active_end, t);
	t->is_active = true;
	cut_from_start(t);
}

static void recover_transfers(struct fdmabuf_queue *queue)
{
	for (struct fdmabuf_transfer *t = queue->active; t; t = t->next)
		recover_transfer(queue, t);
}

/* Does all that can be done without the kernel. */
static void advance(struct fdmabuf_queue *queue)
{
	do {
		queue->has_more_to_do = false;
		results_take(queue);
		recover_transfers(queue);
		send_ready(queue);
		send_new(queue);
	} while (finish_transfers(queue) || queue->has_more_to_do);
}

/*
 * Ends all transfers with @error (a positive errno) of a ring that takes no more requests. What the
 * kernel has is still waited for: until then the device may use the memory.
 */
static void break_queue(struct fdmabuf_queue *queue, int error)
{
	void *tag;

	queue->broken = error;
	while (ring_take_back(queue->ring, &tag)) {
		struct request *request = tag;

		results_note_completion(queue, request, -error);
		request_list_append(&queue->ready, request);
	}
	for (struct fdmabuf_transfer *t = queue->active; t; t = t->next)
		transfer_stop(t, fail(error, "io_uring: %s: open a new queue", strerror(error)));
}

/* Handles what ring_submit() or ring_wait() returned. */
static void check_ring(struct fdmabuf_queue *queue, int ret)
{
	queue->submit_again = ret == -EAGAIN || ret == -EBUSY ? monotonic_milliseconds() + 1 : 0;
	if (ret && ret != -EINTR && !queue->submit_again && !queue->broken)
		break_queue(queue, -ret);
}

void loop_advance(struct fdmabuf_queue *queue)
{
	advance(queue);
	check_ring(queue, ring_submit(queue->ring));
	advance(queue);
	/* What the second pass has queued. */
	check_ring(queue, ring_submit(queue->ring));
	if (queue->broken)
		advance(queue);
}

static void earliest(int64_t *timer, int64_t other)
{
	if (other && (!*timer || other < *timer))
		*timer = other;
}

int64_t loop_next_timer(const struct fdmabuf_queue *queue)
{
	int64_t timer = queue->in_flight ? queue->submit_again : 0;

	if (queue->copied.first)	/* loop_advance() goes on with what has been copied */
		earliest(&timer, 1);
	for (const struct request *request = queue->ready.first; request; request = request->next)
		if (!request->transfer->error)
			earliest(&timer, request->not_before);
	for (const struct fdmabuf_transfer *t = queue->active; t; t = t->next) {
		if (t->error && !t->in_flight)
			earliest(&timer, 1);	/* loop_advance() ends the transfer */
		for (size_t i = 0; i < t->use_count && !t->error; i++)
			if (t->uses[i].deadline)
				earliest(&timer, t->uses[i].pair->next_look);
	}
	return timer;
}

static void sleep_milliseconds(int64_t time)
{
	struct timespec interval = {
		.tv_sec = time / 1000,
		.tv_nsec = time % 1000 * 1000000,
	};

	/* A signal ends the sleep early, so that a progress function can react to it. */
	nanosleep(&interval, NULL);
}

/* Returns how long to wait, in ms; -1 = for ever. */
static int64_t time_to_wait(const struct fdmabuf_queue *queue, int64_t timeout)
{
	int64_t timer = loop_next_timer(queue), now = timer ? monotonic_milliseconds() : 0;
	int64_t limit = timer <= now ? 0 : timer - now;

	if (!timer)
		limit = -1;
	for (const struct fdmabuf_transfer *t = queue->active; t; t = t->next)
		if (t->progress && (limit < 0 || limit > PROGRESS_INTERVAL))
			limit = PROGRESS_INTERVAL;
	return limit < 0 || (timeout >= 0 && timeout < limit) ? timeout : limit;
}

/* Returns what the transfer's progress function does. */
static int call_progress(const struct fdmabuf_transfer *t)
{
	struct fdmabuf_progress progress = {
		.size = sizeof(progress),
		.transfer = (struct fdmabuf_transfer *)t,
		.state = fdmabuf_transfer_state(t),
		.in_flight = t->in_flight,
		.done = min_u64(t->moved, t->total),
		.total = t->total,
	};

	return t->progress(t->data, &progress);
}

void loop_report_ends(struct fdmabuf_queue *queue)
{
	if (!queue->has_last_report)
		return;
	queue->has_last_report = false;
	for (struct fdmabuf_transfer *t = queue->finished; t; t = t->next) {
		if (t->is_last_report_due)
			call_progress(t);
		t->is_last_report_due = false;
	}
}

/* Returns true if a transfer is to be cancelled, which was not before. */
static bool report_progress(struct fdmabuf_queue *queue)
{
	bool cancels = false;

	for (struct fdmabuf_transfer *t = queue->active; t; t = t->next) {
		if (!t->progress || !call_progress(t) || t->is_cancelled)
			continue;
		loop_cancel(queue, t);
		cancels = true;
	}
	loop_report_ends(queue);
	return cancels;
}

void loop_poll(struct fdmabuf_queue *queue)
{
	loop_advance(queue);
	/* The ring has to be told, because its descriptor may not become readable before that. */
	while (report_progress(queue))
		loop_advance(queue);
}

void loop_flush(struct fdmabuf_queue *queue)
{
	check_ring(queue, ring_submit(queue->ring));
}

void loop_wait(struct fdmabuf_queue *queue, int64_t timeout)
{
	uint64_t ended_before = queue->ended_count;
	int64_t limit;

	advance(queue);
	/* The caller may wait for just what has ended. */
	if (queue->ended_count != ended_before || !queue->active)
		timeout = 0;
	limit = time_to_wait(queue, timeout);
	if (queue->in_flight)
		check_ring(queue, ring_wait(queue->ring, limit, copiers_fd(queue)));
	else if (limit > 0)
		sleep_milliseconds(limit);
	advance(queue);
	while (report_progress(queue))
		loop_advance(queue);
}

void loop_cancel(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t)
{
	if (!t->is_active || t->is_cancelled)
		return;
	t->is_cancelled = true;
	transfer_stop(t, fail(ECANCELED, "the transfer was cancelled"));
	for (uint32_t i = 0; i < queue->depth; i++) {
		struct request *request = &queue->requests[i];

		if (request->transfer == t && request->is_in_flight &&
		    !request->is_copying)
			ring_cancel(queue->ring, request);
	}
}
