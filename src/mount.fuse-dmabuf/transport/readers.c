/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A thread that has a turn reads a request, answers it and reads again: nobody else is woken. A turn goes to
 * another thread when its own is about to wait for the disk, or is seen not to have come back. There are more
 * turns when requests are found waiting again and again. This is watched by a thread of its own, which sleeps
 * while there are no requests.
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

/* What a request that blocks unexpectedly can cost the others, twice this; a thousandth of a processor. */
#define TICK_NANOSECONDS 1000000

/* A thread that is not asleep, but has not come back either, may lack a processor: another would, too. */
#define LONG_TICKS 5u

/* So many ticks more must have seen too few turns (or too many) than not, before it is believed. */
#define ENOUGH_TICKS 16u

/* Without requests for so many ticks the watch sleeps. */
#define QUIET_TICKS 64u

enum state {
	STANDING_BY,    /* no turn */
	READING,        /* has a turn, and waits for a request */
	ANSWERING,      /* has a turn, and will be back soon */
};

struct reader {
	_Atomic enum state state;
	atomic_uint answered;
	_Atomic pid_t thread;

	/* The watch's. */
	unsigned int seen, ticks;
};

static struct {
	struct reader all[TRANSPORT_THREADS_MAX];
	atomic_uint count;
	sem_t turns;            /* those that nobody has */
	atomic_uint turn_count; /* all of them */
	atomic_int surplus;     /* to be given up */
	int device;

	pthread_t watch;
	sem_t wake_up;
	atomic_bool asleep, ending;
} readers;

static _Thread_local struct reader *self;

static bool give_up_surplus(void)
{
	int surplus = atomic_load(&readers.surplus);

	while (surplus > 0) {
		if (atomic_compare_exchange_weak(&readers.surplus, &surplus, surplus - 1)) {
			atomic_fetch_sub(&readers.turn_count, 1);
			return true;
		}
	}
	return false;
}

/* Whether this thread still has the turn that it had when it began to answer. */
static bool keeps_turn(void)
{
	enum state state = ANSWERING;

	return atomic_compare_exchange_strong(&self->state, &state, READING) || state == READING;
}

void readers_take_turn(void)
{
	if (!self) {
		self = &readers.all[atomic_fetch_add(&readers.count, 1)];
		atomic_store(&self->thread, gettid());
	}
	if (keeps_turn()) {
		if (!give_up_surplus())
			return;
		atomic_store(&self->state, STANDING_BY);
	}
	while (sem_wait(&readers.turns))
		;
	atomic_store(&self->state, READING);
}

void readers_pass_turn(void)
{
	atomic_store(&self->state, STANDING_BY);
	sem_post(&readers.turns);
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
		/* Requests for tokens are the highest. */
		return header->opcode > FUSE_STATX;
	}
}

void readers_got(const void *request, ssize_t size)
{
	if (size <= 0)
		return;
	atomic_fetch_add_explicit(&self->answered, 1, memory_order_relaxed);
	if (may_take_long(request, size)) {
		readers_pass_turn();
	} else {
		atomic_store(&self->state, ANSWERING);
	}
	if (atomic_load(&readers.asleep) && atomic_exchange(&readers.asleep, false))
		sem_post(&readers.wake_up);
}

/* ---------------------------------------------------------------- the watch */

struct sight {
	unsigned int reading, answering;
	bool active;    /* since the last look */
};

/* Whether a thread waits for something else than a processor. */
static bool sleeps(pid_t thread)
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

/* A thread that answers the same request as a tick ago loses its turn to another. */
static void pass_on_turn(struct reader *reader)
{
	enum state state = ANSWERING;

	if (++reader->ticks < LONG_TICKS && !sleeps(reader->thread))
		return;
	if (atomic_compare_exchange_strong(&reader->state, &state, STANDING_BY))
		sem_post(&readers.turns);
}

static struct sight look(void)
{
	unsigned int count = atomic_load(&readers.count);
	struct sight sight = { 0 };
	struct reader *reader;
	unsigned int answered;
	enum state state;

	for (unsigned int i = 0; i < count; i++) {
		reader = &readers.all[i];
		answered = atomic_load_explicit(&reader->answered, memory_order_relaxed);
		state = atomic_load(&reader->state);
		if (answered != reader->seen) {
			sight.active = true;
			reader->ticks = 0;
		} else if (state == ANSWERING) {
			pass_on_turn(reader);
		}
		reader->seen = answered;
		sight.reading += state == READING;
		sight.answering += state == ANSWERING;
	}
	return sight;
}

static bool requests_wait(void)
{
	struct pollfd poll_device = { .fd = readers.device, .events = POLLIN };

	return poll(&poll_device, 1, 0) > 0 && poll_device.revents & POLLIN;
}

static void add_turns(void)
{
	unsigned int count = atomic_load(&readers.turn_count);

	for (unsigned int i = 0; i < count && count + i < TRANSPORT_THREADS_MAX; i++) {
		atomic_fetch_add(&readers.turn_count, 1);
		sem_post(&readers.turns);
	}
}

static void remove_turn(void)
{
	if (atomic_load(&readers.turn_count) > 1 && !atomic_load(&readers.surplus))
		atomic_fetch_add(&readers.surplus, 1);
}

/* True when it has been so more often than not, for long enough. */
static bool is_believed(unsigned int *evidence, bool seen)
{
	if (seen)
		++*evidence;
	else if (*evidence)
		--*evidence;
	if (*evidence < ENOUGH_TICKS)
		return false;
	*evidence = 0;
	return true;
}

/* Too few turns: requests wait although those who have turns get on. Too many: several wait for requests. */
static void weigh(const struct sight *sight)
{
	static unsigned int too_few, too_many;

	if (is_believed(&too_few, sight->active && !sight->reading && requests_wait()))
		add_turns();
	if (is_believed(&too_many, sight->reading > 1))
		remove_turn();
}

/* Until the next request. One that comes meanwhile is seen here, or sees that the watch is asleep. */
static void sleep_long(void)
{
	atomic_store(&readers.asleep, true);
	if (look().answering && atomic_exchange(&readers.asleep, false))
		return;
	while (sem_wait(&readers.wake_up))
		;
}

static void *watch(void *unused)
{
	static const struct timespec tick = { .tv_nsec = TICK_NANOSECONDS };
	unsigned int quiet = 0;
	struct sight sight;

	while (!atomic_load(&readers.ending)) {
		nanosleep(&tick, NULL);
		sight = look();
		weigh(&sight);
		quiet = sight.active || sight.answering ? 0 : quiet + 1;
		if (quiet > QUIET_TICKS)
			sleep_long();
	}
	return unused;
}

static int start_watch(void)
{
	sigset_t all, before;
	int error;

	/* Signals are for the main thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	error = pthread_create(&readers.watch, NULL, watch, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error;
}

bool readers_begin(int device)
{
	int error;

	readers.device = device;
	atomic_store(&readers.turn_count, 1);
	sem_init(&readers.turns, 0, 1);
	sem_init(&readers.wake_up, 0, 0);
	error = start_watch();
	if (error)
		log_error("cannot start a thread: %s", strerror(error));
	return !error;
}

void readers_end(void)
{
	atomic_store(&readers.ending, true);
	sem_post(&readers.wake_up);
	pthread_join(readers.watch, NULL);
	sem_destroy(&readers.turns);
	sem_destroy(&readers.wake_up);
}
