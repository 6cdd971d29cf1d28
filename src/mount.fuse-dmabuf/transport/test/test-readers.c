/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of readers.c: threads read requests from a socket, which is like the device, because one
 * message is one request.
 */
#include <linux/fuse.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "transport/readers.h"

enum { THREADS = 12 };

/* A request's "unique" tells the thread whether the answer blocks. */
enum { QUICK, BLOCKS };

static int device[2];
static sem_t answered, begun, unblock;
static atomic_int last_thread, changes;

static void answer(const struct fuse_in_header *header, int thread)
{
	if (atomic_exchange(&last_thread, thread) != thread)
		atomic_fetch_add(&changes, 1);
	sem_post(&begun);
	if (header->unique == BLOCKS)
		sem_wait(&unblock);
	sem_post(&answered);
}

static void *serve(void *thread)
{
	struct fuse_in_header header;
	ssize_t got;

	do {
		readers_acquire_permit();
		got = read(device[0], &header, sizeof(header));
		readers_note_request(&header, got);
		if (got > 0)
			answer(&header, (int)(intptr_t)thread);
	} while (got > 0);
	return NULL;
}

static void ask(uint32_t opcode, uint64_t unique)
{
	struct fuse_in_header header = {
		.len = sizeof(header), .opcode = opcode, .unique = unique,
	};

	CHECK_EQUAL(write(device[1], &header, sizeof(header)), sizeof(header));
}

static void quick_requests_are_answered_by_one_thread(void)
{
	atomic_store(&changes, 0);
	for (int i = 0; i < 500; i++) {
		ask(FUSE_LOOKUP, QUICK);
		sem_wait(&answered);
		sem_wait(&begun);
	}
	/* Sometimes a thread loses its permit because the system does not let the thread run. */
	CHECK(atomic_load(&changes) < 250);
}

static void others_are_answered_during(uint32_t opcode)
{
	ask(opcode, BLOCKS);
	sem_wait(&begun);
	for (int i = 0; i < 10; i++) {
		ask(FUSE_GETATTR, QUICK);
		sem_wait(&begun);
		sem_wait(&answered);
	}
	sem_post(&unblock);
	sem_wait(&answered);
}

static void others_are_answered_while_one_waits_for_the_disk(void)
{
	others_are_answered_during(FUSE_FSYNC);
}

static void others_are_answered_while_one_blocks_unexpectedly(void)
{
	others_are_answered_during(FUSE_LOOKUP);
}

static void requests_that_block_are_begun_together(void)
{
	for (int i = 0; i < THREADS - 1; i++)
		ask(FUSE_LOOKUP, BLOCKS);
	for (int i = 0; i < THREADS - 1; i++)
		sem_wait(&begun);
	for (int i = 0; i < THREADS - 1; i++)
		sem_post(&unblock);
	for (int i = 0; i < THREADS - 1; i++)
		sem_wait(&answered);
}

/* The monitor thread sleeps after the pause, and must be woken. */
static void first_request_after_a_pause_may_block(void)
{
	usleep(200000);
	others_are_answered_during(FUSE_LOOKUP);
}

int main(void)
{
	pthread_t threads[THREADS];

	sem_init(&answered, 0, 0);
	sem_init(&begun, 0, 0);
	sem_init(&unblock, 0, 0);
	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, device));
	CHECK(readers_begin(device[0]));
	for (intptr_t i = 0; i < THREADS; i++)
		CHECK(!pthread_create(&threads[i], NULL, serve, (void *)i));
	RUN(quick_requests_are_answered_by_one_thread);
	RUN(others_are_answered_while_one_waits_for_the_disk);
	RUN(others_are_answered_while_one_blocks_unexpectedly);
	RUN(requests_that_block_are_begun_together);
	RUN(first_request_after_a_pause_may_block);
	for (int i = 0; i < THREADS; i++)
		pthread_cancel(threads[i]);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	readers_end();
	return 0;
}
