/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Gives copies to threads. A thread is started only when a copy waits and all threads are busy, so
 * there are as many as the copies keep busy.
 */
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "base/arithmetic.h"
#include "base/descriptor.h"
#include "queue/copiers.h"
#include "queue/copy.h"

/* Without an option there are at most as many: more do not copy faster on any common machine. */
#define THREADS_DEFAULT 16u
/* In bytes: drivers of GPUs copy in these threads, too. */
#define STACK_SIZE (256u << 10)

struct copiers {
	pthread_mutex_t lock;		/* protects all but event_fd, limit, threads and ids */
	pthread_cond_t has_work;
	struct request_list waiting, done;
	unsigned waiting_count, idle;	/* a thread that begins is idle */
	bool ends;
	int event_fd;			/* is readable while there are copies in done */
	unsigned limit, threads;
	pthread_t ids[];		/* an array of limit */
};

static unsigned count_processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);
}

static unsigned find_limit(const struct fdmabuf_queue *queue)
{
	unsigned processors = queue->copy_threads ? 0 : count_processors();

	if (queue->copy_threads)
		return queue->copy_threads;
	return processors > 1 ? min_u64(processors, THREADS_DEFAULT) : 0;
}

static void free_copiers(struct copiers *copiers)
{
	close_fd(&copiers->event_fd);
	free(copiers);
}

/* Returns NULL without memory or descriptors: then the thread of the queue copies. */
static struct copiers *open_copiers(const struct fdmabuf_queue *queue)
{
	unsigned limit = find_limit(queue);
	struct copiers *copiers = calloc(1, sizeof(*copiers) + limit * sizeof(*copiers->ids));
	struct epoll_event event = { .events = EPOLLIN };

	if (!copiers)
		return NULL;
	copiers->limit = limit;
	copiers->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (copiers->event_fd < 0 ||
	    (queue->event_fd >= 0 && epoll_ctl(queue->event_fd, EPOLL_CTL_ADD, copiers->event_fd,
					       &event))) {
		free_copiers(copiers);
		return NULL;
	}
	pthread_mutex_init(&copiers->lock, NULL);
	pthread_cond_init(&copiers->has_work, NULL);
	request_list_init(&copiers->waiting);
	request_list_init(&copiers->done);
	return copiers;
}

/* Returns NULL when the threads are to end. Caller holds the lock, which is released meanwhile. */
static struct request *wait_for_work(struct copiers *copiers)
{
	while (!copiers->waiting.first && !copiers->ends) {
		copiers->idle++;
		pthread_cond_wait(&copiers->has_work, &copiers->lock);
		copiers->idle--;
	}
	if (!copiers->waiting.first)
		return NULL;
	copiers->waiting_count--;
	return request_list_take(&copiers->waiting);
}

static void *run_copier(void *argument)
{
	struct copiers *copiers = argument;
	struct request *request;

	pthread_setname_np(pthread_self(), "fdmabuf-copy");
	pthread_mutex_lock(&copiers->lock);
	copiers->idle--;
	while ((request = wait_for_work(copiers))) {
		pthread_mutex_unlock(&copiers->lock);
		copy_run(request);
		pthread_mutex_lock(&copiers->lock);
		if (!copiers->done.first)
			eventfd_write(copiers->event_fd, 1);
		request_list_append(&copiers->done, request);
	}
	pthread_mutex_unlock(&copiers->lock);
	return NULL;
}

static void add_idle(struct copiers *copiers, int change)
{
	pthread_mutex_lock(&copiers->lock);
	copiers->idle += change;
	pthread_mutex_unlock(&copiers->lock);
}

/* Starts a thread, which takes no signals of the program. If that fails, none is tried again. */
static void start_thread(struct copiers *copiers)
{
	pthread_attr_t attributes;
	sigset_t all, before;
	int error = pthread_attr_init(&attributes);

	if (!error) {
		pthread_attr_setstacksize(&attributes, max_u64(PTHREAD_STACK_MIN, STACK_SIZE));
		add_idle(copiers, 1);
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &before);
		error = pthread_create(&copiers->ids[copiers->threads], &attributes, run_copier,
				       copiers);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
		pthread_attr_destroy(&attributes);
		if (error)
			add_idle(copiers, -1);
	}
	if (error)
		copiers->limit = copiers->threads;
	else
		copiers->threads++;
}

bool copiers_are_for(const struct fdmabuf_queue *queue, uint64_t bytes)
{
	return bytes >= COPY_BY_THREAD_MIN && queue->copy_threads != FDMABUF_COPY_THREADS_NONE &&
	       (!queue->copiers || queue->copiers->limit);
}

/* Returns false if there is no thread. */
static bool give_to_thread(struct copiers *copiers, struct request *request)
{
	bool lacks_threads;

	if (!copiers->threads && copiers->limit)
		start_thread(copiers);
	if (!copiers->threads)
		return false;
	pthread_mutex_lock(&copiers->lock);
	request_list_append(&copiers->waiting, request);
	lacks_threads = ++copiers->waiting_count > copiers->idle;
	pthread_cond_signal(&copiers->has_work);
	pthread_mutex_unlock(&copiers->lock);
	if (lacks_threads && copiers->threads < copiers->limit)
		start_thread(copiers);
	return true;
}

void copiers_give(struct fdmabuf_queue *queue, struct request *request)
{
	request->is_copying = true;
	if (copiers_are_for(queue, request->copy.bytes)) {
		if (!queue->copiers)
			queue->copiers = open_copiers(queue);
		if (!queue->copiers)
			queue->copy_threads = FDMABUF_COPY_THREADS_NONE;
		else if (give_to_thread(queue->copiers, request))
			return;
	}
	copy_run(request);
	request_list_append(&queue->copied, request);
}

static struct request *take_from_threads(struct copiers *copiers)
{
	struct request *request;
	eventfd_t ignored;

	pthread_mutex_lock(&copiers->lock);
	request = request_list_take(&copiers->done);
	if (request && !copiers->done.first)
		eventfd_read(copiers->event_fd, &ignored);
	pthread_mutex_unlock(&copiers->lock);
	return request;
}

struct request *copiers_next(struct fdmabuf_queue *queue)
{
	struct request *request = request_list_take(&queue->copied);

	if (!request && queue->copiers)
		request = take_from_threads(queue->copiers);
	if (request)
		request->is_copying = false;
	return request;
}

int copiers_fd(const struct fdmabuf_queue *queue)
{
	return queue->copiers ? queue->copiers->event_fd : -1;
}

void copiers_close(struct fdmabuf_queue *queue)
{
	struct copiers *copiers = queue->copiers;

	if (!copiers)
		return;
	pthread_mutex_lock(&copiers->lock);
	copiers->ends = true;
	pthread_cond_broadcast(&copiers->has_work);
	pthread_mutex_unlock(&copiers->lock);
	for (unsigned i = 0; i < copiers->threads; i++)
		pthread_join(copiers->ids[i], NULL);
	pthread_cond_destroy(&copiers->has_work);
	pthread_mutex_destroy(&copiers->lock);
	free_copiers(copiers);
}

void copiers_forget(struct fdmabuf_queue *queue)
{
	if (queue->copiers)
		free_copiers(queue->copiers);
}
