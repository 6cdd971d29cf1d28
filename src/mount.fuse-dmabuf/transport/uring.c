/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The threads that serve requests by io_uring, a group of them for each processor's queue. */
#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "common/fuse-connection.h"
#include "limits/descriptor-limit.h"
#include "log/log.h"
#include "transport/request.h"
#include "transport/uring-entry.h"
#include "transport/uring-protocol.h"
#include "transport/uring.h"

/* Bytes: the kernel's FUSE_MIN_READ_BUFFER. */
#define PAYLOAD_MIN 8192u

enum state {
	READING,        /* requests are read from the device, until INIT or for ever */
	PREPARING,      /* threads make their entries and wait for the answer to INIT */
	SERVING,        /* requests come by io_uring */
};

/*
 * Threads for each queue, and there is a queue for each possible processor. So many requests of a
 * queue can wait, for a disk or for a frozen file system, before other requests of that queue must
 * wait, too. All threads are started at the beginning: an entry that is registered later would get
 * none of the requests that wait already.
 */
#define THREADS_MIN 8u
#define THREADS_MAX 16u

static struct {
	struct fuse_session *session;
	void (*fail)(int error);
	size_t payload_size;
	unsigned int queues;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum state state;
	struct thread {
		pthread_t id;
		unsigned int queue;
	} *threads;
	unsigned int thread_count;
	unsigned int prepared;  /* threads that have made their entries, or failed to */
	int error;              /* errno of a thread that failed to, or 0 */
} uring = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

/*
 * Binds the calling thread to the processor on which the programs run whose requests come by the
 * queue. If the server may not run there, the thread serves the queue from other processors.
 */
static void bind_to_processor(unsigned int number)
{
	cpu_set_t *set = CPU_ALLOC(uring.queues);
	size_t size = CPU_ALLOC_SIZE(uring.queues);

	if (!set)
		return;
	if (!pthread_getaffinity_np(pthread_self(), size, set) && CPU_ISSET_S(number, size, set)) {
		CPU_ZERO_S(size, set);
		CPU_SET_S(number, size, set);
		pthread_setaffinity_np(pthread_self(), size, set);
	}
	CPU_FREE(set);
}

/*
 * Reports that this thread has its entry, or the errno why it has none, and waits for the end of
 * PREPARING. Returns true if io_uring has been agreed on with the kernel.
 */
static bool wait_for_agreement(int error)
{
	bool agreed;

	pthread_mutex_lock(&uring.lock);
	uring.prepared++;
	if (error)
		uring.error = error;
	pthread_cond_broadcast(&uring.changed);
	while (uring.state == PREPARING)
		pthread_cond_wait(&uring.changed, &uring.lock);
	agreed = uring.state == SERVING;
	pthread_mutex_unlock(&uring.lock);
	return agreed;
}

/* A request that is not answered would occupy its entry for ever, so it gets an error. */
static void answer_request(const struct fuse_buf *request)
{
	const struct fuse_in_header *header = request->mem;

	request_dispatch(request);
	if (uring_entry_has_request(header->unique)) {
		log_error("request %u was not answered", header->opcode);
		transport_answer(fuse_session_fd(uring.session), header, EIO, NULL, 0);
	}
}

/*
 * Returns false if the kernel refuses the entry. If that is the first one of a queue, the kernel
 * goes on without io_uring, so this is only a warning.
 */
static bool register_entry(struct uring_entry *entry)
{
	static atomic_llong next;
	int error = uring_entry_register(entry);

	if (error && !fuse_connection_has_ended(error) && log_is_due(&next))
		log_warning("the kernel does not take a thread's io_uring: %s",
			    strerror(error));
	return !error;
}

static void serve(struct uring_entry *entry)
{
	struct fuse_buf request;
	int error;

	if (!register_entry(entry))
		return;
	while (!(error = uring_entry_wait(entry, &request)))
		answer_request(&request);
	/* The threads that read the device handle the end of the connection. */
	if (!fuse_connection_has_ended(error))
		uring.fail(error);
}

static void free_entry(void *entry)
{
	uring_entry_free(entry);
}

static void serve_and_free(struct uring_entry *entry)
{
	pthread_cleanup_push(free_entry, entry);
	serve(entry);
	pthread_cleanup_pop(true);
}

static struct uring_entry *new_entry(unsigned int queue)
{
	struct uring_entry *entry;

	do {
		entry = uring_entry_new(fuse_session_fd(uring.session), queue, uring.payload_size);
	} while (!entry && may_open_again());
	return entry;
}

static void *work(void *argument)
{
	const struct thread *thread = argument;
	struct uring_entry *entry;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	bind_to_processor(thread->queue);
	entry = new_entry(thread->queue);
	if (wait_for_agreement(entry ? 0 : errno))
		serve_and_free(entry);
	else if (entry)
		uring_entry_free(entry);
	return NULL;
}

static unsigned int threads_per_queue(void)
{
	unsigned int threads = TRANSPORT_THREADS_MAX / uring.queues;

	return threads < THREADS_MIN ? THREADS_MIN : threads > THREADS_MAX ? THREADS_MAX : threads;
}

/*
 * Returns 0 or an errno. The threads take no signals: they inherit the mask of the thread that
 * answers INIT.
 */
static int start_threads(void)
{
	unsigned int total = uring.queues * threads_per_queue();
	int error = 0;

	uring.threads = calloc(total, sizeof(*uring.threads));
	if (!uring.threads)
		return ENOMEM;
	for (unsigned int i = 0; i < total && !error; i++) {
		uring.threads[i].queue = i % uring.queues;
		error = pthread_create(&uring.threads[i].id, NULL, work, &uring.threads[i]);
		uring.thread_count += !error;
	}
	return error;
}

/* Starts the threads and waits until all have their entries. Returns 0 or an errno. */
static int prepare(void)
{
	int error;

	/*
	 * get_nprocs_conf() reads this file. With one queue less than the kernel has, no request
	 * would ever come.
	 */
	if (access("/sys/devices/system/cpu/possible", R_OK))
		return errno;
	uring.queues = (unsigned int)get_nprocs_conf();
	pthread_mutex_lock(&uring.lock);
	uring.state = PREPARING;
	error = start_threads();
	while (uring.prepared < uring.thread_count)
		pthread_cond_wait(&uring.changed, &uring.lock);
	if (!error)
		error = uring.error;
	pthread_mutex_unlock(&uring.lock);
	return error;
}

static void set_state(enum state state)
{
	pthread_mutex_lock(&uring.lock);
	uring.state = state;
	pthread_cond_broadcast(&uring.changed);
	pthread_mutex_unlock(&uring.lock);
}

/* Returns the payload size that the kernel demands, given the sizes that libfuse has answered. */
static size_t payload_size_for(const struct fuse_init_out *out)
{
	size_t size = (size_t)out->max_pages * (size_t)sysconf(_SC_PAGESIZE);

	if (size < out->max_write)
		size = out->max_write;
	return size < PAYLOAD_MIN ? PAYLOAD_MIN : size;
}

bool uring_prepare(struct fuse_session *session, const struct fuse_init_out *out,
		   void (*fail)(int error))
{
	int error;

	uring.session = session;
	uring.fail = fail;
	uring.payload_size = payload_size_for(out);
	error = prepare();
	if (!error)
		return true;
	log_warning("no io_uring, requests are read: %s", strerror(error));
	set_state(READING);
	return false;
}

void uring_begin(bool agreed)
{
	set_state(agreed ? SERVING : READING);
	if (agreed)
		log_info("requests come by io_uring, by %u queues", uring.queues);
}

void uring_end(void)
{
	for (unsigned int i = 0; i < uring.thread_count; i++)
		pthread_cancel(uring.threads[i].id);
	for (unsigned int i = 0; i < uring.thread_count; i++)
		pthread_join(uring.threads[i].id, NULL);
	free(uring.threads);
	uring.threads = NULL;
	uring.thread_count = uring.prepared = 0;
	uring.error = 0;
}
