/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Queues: opens and closes them, and tells what they have done. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "base/arithmetic.h"
#include "base/descriptor.h"
#include "base/error.h"
#include "base/fork.h"
#include "base/structs.h"
#include "common/clock.h"
#include "queue/api.h"
#include "queue/copiers.h"
#include "queue/host-memory.h"
#include "queue/loop.h"

/*
 * In requests and in bytes. Devices take commands of 128 KiB to 4 MiB, powers of two, so that a
 * request of 4 MiB becomes commands of full size on all of them.
 */
#define DEPTH_DEFAULT 16u
#define CHUNK_DEFAULT (4u << 20)
#define CHUNK_UNIT 4096u	/* bytes; a chunk is a multiple of this many */
#define TOKENS_DEFAULT 1024u

/*
 * In ms: long enough for a service manager to restart the server, short enough for a person who
 * waits for the error.
 */
#define MOUNT_WAIT_DEFAULT 10000u

/*
 * In bytes. More bounce memory is not faster, because the copy is slower than the device. The limit
 * of the chunk leaves enough chunks to overlap reading and copying.
 */
#define HOST_MEMORY_MAX (16u << 20)
#define HOST_CHUNK_MAX (1u << 20)

static int set_options(struct fdmabuf_queue *queue, struct fdmabuf_queue_options *options)
{
	if (options->path > FDMABUF_BOUNCE)
		return fail(EINVAL, "path %d is not known", (int)options->path);
	queue->wanted_path = options->path;
	queue->depth = options->depth ? options->depth : DEPTH_DEFAULT;
	queue->chunk = options->chunk ? options->chunk : CHUNK_DEFAULT;
	if (!options->tokens)
		options->tokens = TOKENS_DEFAULT;
	if (queue->depth > FDMABUF_DEPTH_MAX)
		return fail(EINVAL, "depth %u is more than %u", queue->depth, FDMABUF_DEPTH_MAX);
	if (queue->chunk % CHUNK_UNIT || queue->chunk > FDMABUF_CHUNK_MAX)
		return fail(EINVAL, "chunk %u is not a multiple of %u up to %u", queue->chunk,
			    CHUNK_UNIT, FDMABUF_CHUNK_MAX);
	if (options->tokens > FDMABUF_TOKENS_MAX)
		return fail(EINVAL, "%u tokens are more than %u", options->tokens,
			    FDMABUF_TOKENS_MAX);

	if (options->mount_wait > FDMABUF_MOUNT_WAIT_MAX &&
	    options->mount_wait != FDMABUF_MOUNT_WAIT_NONE)
		return fail(EINVAL, "a wait of %u ms for the mount is more than %u",
			    options->mount_wait, FDMABUF_MOUNT_WAIT_MAX);
	queue->mount_wait = options->mount_wait ? options->mount_wait : MOUNT_WAIT_DEFAULT;
	if (options->mount_wait == FDMABUF_MOUNT_WAIT_NONE)
		queue->mount_wait = 0;

	if (options->proof > FDMABUF_PROOF_NEVER)
		return fail(EINVAL, "proof %d is not known", (int)options->proof);
	queue->proof = options->proof;
	if (options->copy_threads > FDMABUF_COPY_THREADS_MAX &&
	    options->copy_threads != FDMABUF_COPY_THREADS_NONE)
		return fail(EINVAL, "%u threads that copy are more than %u", options->copy_threads,
			    FDMABUF_COPY_THREADS_MAX);
	queue->copy_threads = options->copy_threads;

	queue->host_chunk = min_u64(queue->chunk, HOST_CHUNK_MAX);
	queue->host_depth = min_u64(queue->depth, HOST_MEMORY_MAX / queue->host_chunk);
	return 0;
}

static int allocate_requests(struct fdmabuf_queue *queue)
{
	queue->requests = calloc(queue->depth, sizeof(*queue->requests));
	queue->host_free = calloc(queue->host_depth, sizeof(*queue->host_free));
	if (!queue->requests || !queue->host_free)
		return fail(ENOMEM, "out of memory");
	for (uint32_t i = 0; i < queue->depth; i++)
		request_list_append(&queue->free, &queue->requests[i]);
	for (uint32_t i = 0; i < queue->host_depth; i++)
		queue->host_free[queue->host_free_count++] = i;
	return 0;
}

static int open_ring(struct fdmabuf_queue *queue, unsigned tokens)
{
	int ret = ring_open(queue->depth, tokens, &queue->ring, &queue->pairs.no_ring_reason);

	if (!ret) {
		queue->pairs.wanted_path = queue->wanted_path;
		ret = pair_table_init(&queue->pairs, queue->ring, tokens);
	}
	if (ret == -EMFILE || ret == -ENFILE)
		return fail(-ret, "io_uring: %s: close some, or raise the limit (ulimit -n)",
			    strerror(-ret));
	if (ret)
		return fail(-ret, "io_uring: out of memory: "
			    "raise the limit of locked memory (ulimit -l)");
	queue->has_vectors = ring_is_uring(queue->ring);
	return 0;
}

int fdmabuf_queue_open(const struct fdmabuf_queue_options *callers, struct fdmabuf_queue **result)
{
	struct fdmabuf_queue_options options = { .size = sizeof(options) };
	struct fdmabuf_queue *queue;
	int ret = callers ? copy_struct_from_caller(&options, sizeof(options), callers) : 0;

	if (ret)
		return ret;
	queue = calloc(1, sizeof(*queue));
	if (!queue)
		return fail(ENOMEM, "out of memory");
	queue->forks = fork_count();
	queue->event_fd = queue->timer_fd = -1;
	queue->active_end = &queue->active;
	queue->finished_end = &queue->finished;
	request_list_init(&queue->free);
	request_list_init(&queue->ready);
	request_list_init(&queue->copied);
	ret = set_options(queue, &options);
	if (!ret)
		ret = allocate_requests(queue);
	if (!ret)
		ret = open_ring(queue, options.tokens);
	if (ret)
		fdmabuf_queue_close(queue);
	else
		*result = queue;
	return ret;
}

/* Frees what a queue has beside its ring, its pairs and its bounce memory. */
static void free_queue(struct fdmabuf_queue *queue)
{
	close_fd(&queue->event_fd);
	close_fd(&queue->timer_fd);
	free(queue->requests);
	free(queue->vectors);
	free(queue->host_free);
	free(queue);
}

/* Transfers that are still to be freed do without their queue. */
static void disown(struct fdmabuf_transfer *t)
{
	for (; t; t = t->next) {
		t->queue = NULL;
		t->link = NULL;
	}
}

/*
 * In a child, the ring and the bounce memory stay the parent's, and so do the tokens; the pairs
 * must not be left to the files and buffers, which would end the tokens.
 */
static void close_in_child(struct fdmabuf_queue *queue)
{
	copiers_forget(queue);
	ring_forget(queue->ring);
	pair_table_forget(&queue->pairs);
	disown(queue->finished);
	for (struct fdmabuf_transfer *t = queue->active; t; t = t->next) {
		transfer_stop(t, fail(ECHILD, "the transfer is the parent's"));
		t->is_active = false;
	}
	disown(queue->active);
	free_queue(queue);
}

void fdmabuf_queue_close(struct fdmabuf_queue *queue)
{
	if (!queue)
		return;
	if (queue->forks != fork_count()) {
		close_in_child(queue);
		return;
	}
	for (struct fdmabuf_transfer *t = queue->active; t; t = t->next)
		loop_cancel(queue, t);
	while (queue->active)
		loop_wait(queue, -1);
	disown(queue->finished);
	copiers_close(queue);
	pair_table_destroy(&queue->pairs);
	ring_close(queue->ring);
	host_memory_free(queue);
	free_queue(queue);
}

int queue_check_process(const struct fdmabuf_queue *queue)
{
	if (queue->forks == fork_count())
		return 0;
	return fail(ECHILD, "the queue belongs to the parent of this process: "
		    "open one after fork(2)");
}

int queue_check(const struct fdmabuf_queue *queue)
{
	int ret = queue_check_process(queue);

	if (!ret && queue->broken)
		return fail(queue->broken, "io_uring: %s: open a new queue",
			    strerror(queue->broken));
	return ret;
}

int fdmabuf_queue_counters(const struct fdmabuf_queue *queue, struct fdmabuf_counters *counters)
{
	struct fdmabuf_counters own = queue->counters;

	own.tokens = queue->pairs.registrations;
	own.tokens_kept = pair_table_count_tokens(&queue->pairs);
	return copy_struct_to_caller(counters, &own, sizeof(own));
}

/* ------------------------------------------------------------- event loops */

static int create_event_fd(struct fdmabuf_queue *queue)
{
	struct epoll_event event = { .events = EPOLLIN };
	int error, copiers = copiers_fd(queue);

	queue->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	queue->event_fd = epoll_create1(EPOLL_CLOEXEC);
	if (queue->timer_fd >= 0 && queue->event_fd >= 0 &&
	    !epoll_ctl(queue->event_fd, EPOLL_CTL_ADD, queue->timer_fd, &event) &&
	    !epoll_ctl(queue->event_fd, EPOLL_CTL_ADD, ring_fd(queue->ring), &event) &&
	    (copiers < 0 || !epoll_ctl(queue->event_fd, EPOLL_CTL_ADD, copiers, &event)))
		return 0;
	error = errno;
	close_fd(&queue->timer_fd);
	close_fd(&queue->event_fd);
	queue->timer_fd = queue->event_fd = -1;
	return fail(error, "the queue has no descriptor: %s", strerror(error));
}

int fdmabuf_queue_fd(struct fdmabuf_queue *queue)
{
	int ret = queue_check(queue);

	if (!ret && queue->event_fd < 0)
		ret = create_event_fd(queue);
	if (ret)
		return ret;
	queue_set_timer(queue);
	return queue->event_fd;
}

void queue_set_timer(struct fdmabuf_queue *queue)
{
	/* Transfers that were not returned yet are due at once, and a broken ring is looked at. */
	int64_t timer = queue->finished ? 1 :
			queue->broken && queue->in_flight ? monotonic_milliseconds() + 10 :
							    loop_next_timer(queue);
	struct itimerspec when = {
		.it_value.tv_sec = timer / 1000,
		.it_value.tv_nsec = timer % 1000 * 1000000,
	};

	if (queue->timer_fd < 0 || timer == queue->timer)
		return;
	queue->timer = timer;
	timerfd_settime(queue->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}
