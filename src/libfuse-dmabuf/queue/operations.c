/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The public functions that start transfers, wait for them, and tell their results. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/structs.h"
#include "common/clock.h"
#include "queue/api.h"
#include "queue/lists.h"
#include "queue/loop.h"
#include "queue/plan.h"
#include "queue/recover.h"

int fdmabuf_submit(struct fdmabuf_queue *queue, const struct fdmabuf_operation *callers,
		   struct fdmabuf_transfer **result)
{
	struct fdmabuf_operation operation;
	struct fdmabuf_transfer *t;
	int ret = queue_check(queue);

	if (!ret)
		ret = copy_struct_from_caller(&operation, sizeof(operation), callers);
	if (!ret)
		ret = plan_transfer(queue, &operation, &t);
	if (ret)
		return ret;
	loop_add(queue, t);
	loop_advance(queue);
	queue_set_timer(queue);
	*result = t;
	return 0;
}

/* -------------------------------------------------------------- transfers */

/* Returns the time in ms that is left of @timeout since @start; -1 = for ever. */
static int64_t time_left(int timeout, int64_t start)
{
	int64_t left;

	if (timeout < 0)
		return -1;
	left = start + timeout - monotonic_milliseconds();
	return left > 0 ? left : 0;
}

int fdmabuf_transfer_wait(struct fdmabuf_transfer *t, int timeout)
{
	int64_t start = timeout > 0 ? monotonic_milliseconds() : 0;
	int ret = t->queue ? queue_check_process(t->queue) : 0;

	if (ret)
		return ret;
	if (!t->is_active) {
		if (t->queue)
			loop_report_ends(t->queue);
		return 0;
	}
	for (;;) {
		int64_t left = timeout > 0 ? time_left(timeout, start) : timeout;

		loop_wait(t->queue, left);
		if (!t->is_active || !left)
			break;
	}
	loop_flush(t->queue);
	queue_set_timer(t->queue);
	return t->is_active ? fail(ETIMEDOUT, "the transfer has not finished") : 0;
}

int fdmabuf_transfer_cancel(struct fdmabuf_transfer *t, int timeout)
{
	int ret = t->queue ? queue_check_process(t->queue) : 0;

	if (ret || !t->is_active)
		return ret;
	loop_cancel(t->queue, t);
	loop_advance(t->queue);
	if (!timeout) {
		queue_set_timer(t->queue);
		return 0;
	}
	return fdmabuf_transfer_wait(t, timeout);
}

int64_t fdmabuf_transfer_bytes(const struct fdmabuf_transfer *t)
{
	int64_t bytes = 0;

	if (t->is_active)
		return fail(EAGAIN, "the transfer has not finished");
	if (t->error)
		return fail(-t->error, "%s", t->error_text);
	for (size_t i = 0; i < t->count; i++)
		bytes += t->done[i];
	return bytes;
}

const char *fdmabuf_transfer_error(const struct fdmabuf_transfer *t)
{
	return t->error_text;
}

/* Sets path and reason of a range. */
static void set_path(struct fdmabuf_result *result, enum fdmabuf_direction direction,
		     const struct fdmabuf_range *range, const struct use *use, unsigned flags)
{
	enum fdmabuf_reason misfit = plan_explain(direction, range, use->block_size,
						  use->buffer_size, flags, result->text);

	result->path = !use->is_bounce ? FDMABUF_DIRECT :
		       use->has_direct_io ? FDMABUF_DIRECT_IO : FDMABUF_BOUNCE;
	if (misfit == FDMABUF_REASON_UNALIGNED ||
	    (misfit == FDMABUF_REASON_PARTIAL_BLOCK &&
	     !plan_has_whole_blocks(direction, range, use->block_size)))
		result->path = FDMABUF_BOUNCE;
	result->proven = result->path == FDMABUF_DIRECT || use->proven == FDMABUF_DISPROVED ?
			 use->proven : FDMABUF_NOT_DIRECT;
	result->reason = misfit;
	if (use->reason != FDMABUF_REASON_NONE) {
		result->reason = use->reason;
		snprintf(result->text, sizeof(result->text), "%s",
			 use->reason_text ? use->reason_text : "");
	}
}

int fdmabuf_transfer_result(const struct fdmabuf_transfer *t, size_t index,
			    struct fdmabuf_result *callers)
{
	struct fdmabuf_result result = { .size = sizeof(result) };
	const struct use *use;

	if (t->is_active)
		return fail(EAGAIN, "the transfer has not finished");
	if (index >= t->count)
		return fail(EINVAL, "range %zu of %zu does not exist", index, t->count);
	use = &t->uses[t->use_of[index]];
	result.done = t->done[index];
	if (result.done < t->ranges[index].length)
		result.error = t->error;
	set_path(&result, t->direction, &t->ranges[index], use,
		 t->shared && t->shared[index] ? t->flags & ~FDMABUF_WHOLE_BLOCKS : t->flags);
	return copy_struct_to_caller(callers, &result, sizeof(result));
}

void *fdmabuf_transfer_data(const struct fdmabuf_transfer *t)
{
	return t->data;
}

/* Takes a transfer from the finished ones of its queue. */
static void remove_finished(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t)
{
	list_remove(&queue->finished_end, t);
	queue->finished_count--;
}

void fdmabuf_transfer_free(struct fdmabuf_transfer *t)
{
	if (!t)
		return;
	if (t->queue && queue_check_process(t->queue)) {
		/* A child frees its copy: neither the requests nor the timer are the child's. */
		list_remove(NULL, t);
	} else if (t->queue) {
		fdmabuf_transfer_cancel(t, -1);
		remove_finished(t->queue, t);
		queue_set_timer(t->queue);
	}
	transfer_release(t);
}

/* ---------------------------------------------------------------- blocking */

int64_t fdmabuf_run(struct fdmabuf_queue *queue, const struct fdmabuf_operation *operation)
{
	struct fdmabuf_transfer *t;
	int64_t bytes;
	int ret = fdmabuf_submit(queue, operation, &t);

	if (ret)
		return ret;
	fdmabuf_transfer_wait(t, -1);
	bytes = fdmabuf_transfer_bytes(t);
	fdmabuf_transfer_free(t);
	return bytes;
}

static int64_t run_ranges(struct fdmabuf_queue *queue, enum fdmabuf_direction direction,
			  const struct fdmabuf_range *ranges, size_t count, unsigned flags)
{
	return fdmabuf_run(queue, &(struct fdmabuf_operation){
		.size = sizeof(struct fdmabuf_operation),
		.direction = direction,
		.flags = flags,
		.ranges = ranges,
		.count = count,
	});
}

int64_t fdmabuf_read(struct fdmabuf_queue *queue, const struct fdmabuf_range *ranges, size_t count,
		     unsigned flags)
{
	return run_ranges(queue, FDMABUF_READ, ranges, count, flags);
}

int64_t fdmabuf_write(struct fdmabuf_queue *queue, const struct fdmabuf_range *ranges, size_t count,
		      unsigned flags)
{
	return run_ranges(queue, FDMABUF_WRITE, ranges, count, flags);
}

int fdmabuf_queue_check(struct fdmabuf_queue *queue, enum fdmabuf_direction direction,
			const struct fdmabuf_range *range, unsigned flags,
			struct fdmabuf_result *callers)
{
	const struct fdmabuf_operation operation = {
		.size = sizeof(operation),
		.direction = direction,
		.flags = flags,
		.ranges = range,
		.count = 1,
	};
	struct fdmabuf_result result = { .size = sizeof(result) };
	struct fdmabuf_transfer *t;
	int ret = queue_check(queue);

	if (!ret)
		ret = plan_transfer(queue, &operation, &t);
	if (ret)
		return ret;
	if (handle_is_lost(t->uses->pair->handle, ENOTCONN))
		ret = fail(ENOTCONN, "%s: the FUSE server of this mount has ended: mount it again",
			   range->file->path);
	transfer_let_pairs_go(t);
	set_path(&result, direction, t->ranges, t->uses, flags);
	transfer_release(t);
	return ret ? ret : copy_struct_to_caller(callers, &result, sizeof(result));
}

/* ------------------------------------------------------------- event loops */

int fdmabuf_queue_poll(struct fdmabuf_queue *queue)
{
	int ret = queue_check_process(queue);

	if (ret)
		return ret;
	loop_poll(queue);
	queue_set_timer(queue);
	return queue->finished_count;
}

int fdmabuf_queue_wait(struct fdmabuf_queue *queue, int timeout)
{
	int64_t start = timeout > 0 ? monotonic_milliseconds() : 0;
	int ret = queue_check_process(queue);

	while (!ret && queue->active && !queue->finished) {
		int64_t left = timeout > 0 ? time_left(timeout, start) : timeout;

		loop_wait(queue, left);
		if (!left)
			break;
	}
	if (!ret) {
		loop_report_ends(queue);
		loop_flush(queue);
		queue_set_timer(queue);
	}
	return ret ? ret : (int)queue->finished_count;
}

struct fdmabuf_transfer *fdmabuf_queue_next(struct fdmabuf_queue *queue)
{
	struct fdmabuf_transfer *t = queue_check_process(queue) ? NULL : queue->finished;

	if (!t)
		return NULL;
	remove_finished(queue, t);
	t->queue = NULL;	/* which may be closed before the transfer is freed */
	queue_set_timer(queue);
	return t;
}
