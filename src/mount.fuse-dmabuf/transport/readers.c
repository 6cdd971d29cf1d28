/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Permits to read requests, and the monitor thread that moves, adds and removes them. The monitor
 * looks at all threads once a tick, and sleeps while there are no requests. readers.h explains the
 * scheme.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "log/log.h"
#include "transport/readers.h"
#include "transport/transport.h"

/*
 * Time between two checks: 1 ms. A request that blocks unexpectedly can delay the others by twice
 * this; the checks cost a thousandth of a processor.
 */
#define TICK_NANOSECONDS 1000000

/*
 * A thread that is runnable, but does not finish its request, may lack a processor, and another
 * thread would lack one, too. So it loses its permit only after this many ticks.
 */
#define RUNNABLE_TICKS_MAX 5u

/*
 * Hysteresis: permits are added (or one is removed) only after this many more ticks asked for it
 * than against it.
 */
#define HYSTERESIS_TICKS 16u

/* After this many ticks without requests the monitor thread sleeps. */
#define IDLE_TICKS_MAX 64u

enum state {
	NO_PERMIT,      /* waits for a permit, or answers a request without one */
	READING,        /* has a permit, and waits for a request */
	ANSWERING,      /* has a permit, and is expected to read again soon */
};

struct reader {
	_Atomic enum state state;
	atomic_uint request_count;      /* requests that the thread has read */
	_Atomic pid_t thread;

	/* Used by the monitor thread only. */
	unsigned int last_request_count;        /* request_count at the last check */
	unsigned int ticks;                     /* spent on the present request */
};

static struct {
	struct reader all[TRANSPORT_THREADS_MAX];
	atomic_uint count;
	sem_t free_permits;             /* permits that no thread has */
	atomic_uint permit_count;       /* all permits */
	atomic_int excess_permits;      /* permits that threads have yet to give up */
	int device;

	pthread_t monitor;
	sem_t wake_up;
	atomic_bool asleep, ending;     /* the monitor thread is */
} readers;

static _Thread_local struct reader *self;

/* Returns true if there was an excess permit: the calling thread's own no longer exists then. */
static bool drop_excess_permit(void)
{
	int excess = atomic_load(&readers.excess_permits);

	while (excess > 0) {
		if (atomic_compare_exchange_weak(&readers.excess_permits, &excess, excess - 1)) {
			atomic_fetch_sub(&readers.permit_count, 1);
			return true;
		}
	}
	return false;
}

/*
 * Returns true, and marks the calling thread as reading, if it still has its permit: the monitor
 * may have taken the permit while the thread answered a request.
 */
static bool keep_permit(void)
{
	enum state state = ANSWERING;

	return atomic_compare_exchange_strong(&self->state, &state, READING) || state == READING;
}

void readers_acquire_permit(void)
{
	if (!self) {
		self = &readers.all[atomic_fetch_add(&readers.count, 1)];
		atomic_store(&self->thread, gettid());
	}
	if (keep_permit()) {
		if (!drop_excess_permit())
			return;
		atomic_store(&self->state, NO_PERMIT);
	}
	while (sem_wait(&readers.free_permits))
		;
	atomic_store(&self->state, READING);
}

void readers_release_permit(void)
{
	atomic_store(&self->state, NO_PERMIT);
	sem_post(&readers.free_permits);
}

static bool may_take_long(const void *request, ssize_t size)
{
	const struct fuse_in_header *header = request;

	if (size < (ssize_t)sizeof(*header))
		return false;
	switch (header->opcode) {
	case FUSE_READ:
	case FUSE_WRITE:
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
	case FUSE_SYNCFS:
	case FUSE_FALLOCATE:
	case FUSE_COPY_FILE_RANGE:
		return true;
	default:
		/* The opcodes of requests for tokens are the highest. */
		return header->opcode > FUSE_STATX;
	}
}

void readers_note_request(const void *request, ssize_t size)
{
	if (size <= 0)
		return;
	atomic_fetch_add_explicit(&self->request_count, 1, memory_order_relaxed);
	if (may_take_long(request, size)) {
		readers_release_permit();
	} else {
		atomic_store(&self->state, ANSWERING);
	}
	if (atomic_load(&readers.asleep) && atomic_exchange(&readers.asleep, false))
		sem_post(&readers.wake_up);
}

/* ---------------------------------------------------------------- the monitor thread */

struct activity {
	unsigned int reading, answering;        /* threads in these states */
	bool has_requests;      /* a thread has read one since the last check */
};

/* Returns true if the thread waits for something other than a processor. */
static bool is_sleeping(pid_t thread)
{
	char path[48], line[128];
	const char *state = NULL;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", thread);
	file = fopen(path, "re");
	if (!file)
		return true;
	/* "1234 (fuse_worker) S ..." */
	if (fgets(line, sizeof(line), file))
		state = strrchr(line, ')');
	fclose(file);
	return !state || state[2] != 'R';
}

/*
 * Takes the permit from a thread that answers the same request as a tick ago, unless the thread is
 * runnable and may finish soon.
 */
static void take_permit(struct reader *reader)
{
	enum state state = ANSWERING;

	if (++reader->ticks < RUNNABLE_TICKS_MAX && !is_sleeping(reader->thread))
		return;
	if (atomic_compare_exchange_strong(&reader->state, &state, NO_PERMIT))
		sem_post(&readers.free_permits);
}

/* Returns what the threads do, and takes the permits of those that block. */
static struct activity check_readers(void)
{
	unsigned int count = atomic_load(&readers.count);
	struct activity activity = { 0 };
	struct reader *reader;
	unsigned int request_count;
	enum state state;

	for (unsigned int i = 0; i < count; i++) {
		reader = &readers.all[i];
		request_count = atomic_load_explicit(&reader->request_count, memory_order_relaxed);
		state = atomic_load(&reader->state);
		if (request_count != reader->last_request_count) {
			activity.has_requests = true;
			reader->ticks = 0;
		} else if (state == ANSWERING) {
			take_permit(reader);
		}
		reader->last_request_count = request_count;
		activity.reading += state == READING;
		activity.answering += state == ANSWERING;
	}
	return activity;
}

static bool has_waiting_requests(void)
{
	struct pollfd poll_device = { .fd = readers.device, .events = POLLIN };

	return poll(&poll_device, 1, 0) > 0 && poll_device.revents & POLLIN;
}

/* Doubles the number of permits, up to one for each thread that there may be. */
static void add_permits(void)
{
	unsigned int count = atomic_load(&readers.permit_count);

	for (unsigned int i = 0; i < count && count + i < TRANSPORT_THREADS_MAX; i++) {
		atomic_fetch_add(&readers.permit_count, 1);
		sem_post(&readers.free_permits);
	}
}

/* Removes a permit, but not the last one, as soon as a thread would read with it again. */
static void remove_permit(void)
{
	if (atomic_load(&readers.permit_count) > 1 && !atomic_load(&readers.excess_permits))
		atomic_fetch_add(&readers.excess_permits, 1);
}

/*
 * Returns true if @condition has held on HYSTERESIS_TICKS more calls than not; *score counts them.
 */
static bool is_sustained(unsigned int *score, bool condition)
{
	if (condition)
		++*score;
	else if (*score)
		--*score;
	if (*score < HYSTERESIS_TICKS)
		return false;
	*score = 0;
	return true;
}

/*
 * There are too few permits if requests wait although the threads that have permits make progress,
 * and too many if several threads wait for requests.
 */
static void adjust_permits(const struct activity *activity)
{
	static unsigned int too_few, too_many;

	if (is_sustained(&too_few, activity->has_requests && !activity->reading &&
			 has_waiting_requests()))
		add_permits();
	if (is_sustained(&too_many, activity->reading > 1))
		remove_permit();
}

/*
 * Sleeps until a thread reads the next request. A request that is read meanwhile is seen by the
 * check here, or the thread that reads it sees that the monitor is asleep and wakes it.
 */
static void sleep_until_request(void)
{
	atomic_store(&readers.asleep, true);
	if (check_readers().answering && atomic_exchange(&readers.asleep, false))
		return;
	while (sem_wait(&readers.wake_up))
		;
}

static void *monitor(void *unused)
{
	static const struct timespec tick = { .tv_nsec = TICK_NANOSECONDS };
	unsigned int idle_ticks = 0;
	struct activity activity;

	while (!atomic_load(&readers.ending)) {
		nanosleep(&tick, NULL);
		activity = check_readers();
		adjust_permits(&activity);
		idle_ticks = activity.has_requests || activity.answering ? 0 : idle_ticks + 1;
		if (idle_ticks > IDLE_TICKS_MAX)
			sleep_until_request();
	}
	return unused;
}

/* Returns 0 or an errno. */
static int start_monitor(void)
{
	sigset_t all, before;
	int error;

	/* Signals are for the main thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	error = pthread_create(&readers.monitor, NULL, monitor, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error;
}

bool readers_begin(int device)
{
	int error;

	readers.device = device;
	atomic_store(&readers.permit_count, 1);
	sem_init(&readers.free_permits, 0, 1);
	sem_init(&readers.wake_up, 0, 0);
	error = start_monitor();
	if (error)
		log_error("cannot start a thread: %s", strerror(error));
	return !error;
}

void readers_end(void)
{
	atomic_store(&readers.ending, true);
	sem_post(&readers.wake_up);
	pthread_join(readers.monitor, NULL);
	sem_destroy(&readers.free_permits);
	sem_destroy(&readers.wake_up);
}
