/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The threads that read requests from the device, and the main thread, which waits for the end. */
#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "log/log.h"
#include "transport/init-answer.h"
#include "transport/readers.h"
#include "transport/request.h"
#include "transport/uring.h"

/* A thread sends this signal to tell the main thread that the session has ended. */
#define SIGNAL_ENDED SIGUSR1

/* Bytes: more than libfuse allocates for a request, which is 256 pages and a header. */
#define REQUEST_MEMORY (2u << 20)

static struct {
	struct fuse_session *session;
	const struct transport_server *server;
	atomic_int error;
	atomic_uint available;  /* threads that do not answer a request */

	pthread_mutex_t lock;
	pthread_t threads[TRANSPORT_THREADS_MAX];
	unsigned int count;
	bool ending;
} loop = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void *work(void *unused);

/* Starts a thread, unless there are TRANSPORT_THREADS_MAX. Returns 0 or an errno. */
static int start_thread(void)
{
	int error = 0;

	pthread_mutex_lock(&loop.lock);
	if (loop.count < TRANSPORT_THREADS_MAX && !loop.ending) {
		atomic_fetch_add(&loop.available, 1);
		error = pthread_create(&loop.threads[loop.count], NULL, work, NULL);
		if (error)
			atomic_fetch_sub(&loop.available, 1);
		else
			loop.count++;
	}
	pthread_mutex_unlock(&loop.lock);
	return error;
}

/*
 * Reads the next request. Returns what fuse_session_receive_buf() returns: the size, 0 if the
 * session has ended, or a negative errno. A thread can be cancelled only here and in
 * wait_for_memory().
 */
static int receive(struct fuse_buf *request)
{
	int got;

	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	readers_acquire_permit();
	got = fuse_session_receive_buf(loop.session, request);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	readers_note_request(request->mem, got);
	return got;
}

/*
 * Waits until there may be memory for a request. The other threads read meanwhile. The memory is
 * tried here, because libfuse complains each time that it gets none.
 */
static void wait_for_memory(void)
{
	static const struct timespec pause = { .tv_nsec = 100000000 };
	static atomic_llong next;
	void *volatile trial = NULL;

	if (log_is_due(&next))
		log_warning("out of memory for one more request at the same time: "
			    "others may wait for each other");
	readers_release_permit();
	do {
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
		nanosleep(&pause, NULL);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		trial = malloc(REQUEST_MEMORY);
	} while (!trial);
	free(trial);
}

static void end_session(int error)
{
	if (error)
		atomic_store(&loop.error, error);
	fuse_session_exit(loop.session);
	kill(getpid(), SIGNAL_ENDED);
}

static void answer(const struct fuse_buf *request)
{
	const struct fuse_in_header *header = request->mem;

	if (request->size >= sizeof(*header) && header->opcode == FUSE_INIT)
		init_answer_complete(loop.session, request->mem, request->size,
				     loop.server->init_flags2, end_session);
	request_dispatch(request);
}

/*
 * Counts the calling thread as busy. Starts another thread if no thread is available then, because
 * requests would wait for each other.
 */
static void keep_thread_available(void)
{
	static atomic_llong next;
	int error = atomic_fetch_sub(&loop.available, 1) == 1 ? start_thread() : 0;

	if (error && log_is_due(&next))
		log_warning("cannot start a thread, requests wait for each other: %s",
			    strerror(error));
}

static void free_request(void *request)
{
	free(((struct fuse_buf *)request)->mem);
}

static void *work(void *unused)
{
	struct fuse_buf request = { 0 };
	int got;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_cleanup_push(free_request, &request);
	while ((got = receive(&request)) > 0 || got == -EINTR || got == -ENOMEM) {
		if (got == -ENOMEM)
			wait_for_memory();
		if (got < 0)
			continue;
		keep_thread_available();
		answer(&request);
		atomic_fetch_add(&loop.available, 1);
	}
	pthread_cleanup_pop(true);
	end_session(got < 0 ? -got : 0);
	return unused;
}

/* Waits for a signal that ends the server, or for a thread that has found the session ended. */
static void wait_for_end(const sigset_t *signals)
{
	int signal;

	while (!fuse_session_exited(loop.session)) {
		if (sigwait(signals, &signal) || signal == SIGNAL_ENDED)
			continue;
		fuse_session_exit(loop.session);
		log_info("ended by signal %d", signal);
	}
}

static void end_threads(void)
{
	pthread_mutex_lock(&loop.lock);
	loop.ending = true;
	pthread_mutex_unlock(&loop.lock);
	for (unsigned int i = 0; i < loop.count; i++)
		pthread_cancel(loop.threads[i]);
	for (unsigned int i = 0; i < loop.count; i++)
		pthread_join(loop.threads[i], NULL);
}

bool transport_begin(struct fuse_session *session, const struct transport_server *server)
{
	loop.session = session;
	loop.server = server;
	request_begin(session, server);
	return readers_begin(fuse_session_fd(session));
}

void transport_end(void)
{
	readers_end();
}

int transport_run(void)
{
	sigset_t signals, all, before;
	int error;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGNAL_ENDED);
	/* Never unblocked: a late signal must not kill the server before it has unmounted. */
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	/* The threads inherit a mask that blocks all signals. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = start_thread();
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error) {
		log_error("cannot start a thread: %s", strerror(error));
		return error;
	}
	wait_for_end(&signals);
	end_threads();
	uring_end();
	error = atomic_load(&loop.error);
	if (error)
		log_error("the connection to the kernel failed: %s", strerror(error));
	return error;
}
