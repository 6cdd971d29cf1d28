/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "answer.h"
#include "descriptors.h"
#include "log.h"
#include "readers.h"
#include "requests.h"
#include "uring.h"
#include "uring-entry.h"
#include "uring-protocol.h"

/* The kernel's FUSE_MIN_READ_BUFFER. */
#define PAYLOAD_MIN 8192u

enum state {
	READING,        /* the device, for now or for ever */
	PREPARING,
	SERVING,
	ENDING,
};

/* One for each processor that there can be: the kernel uses them when all have an entry. */
struct queue {
	unsigned int number;
	atomic_uint available;  /* threads that are not answering */
};

static struct {
	struct fuse_session *session;
	void (*fail)(int error);
	uint64_t init;          /* the number of the request INIT */
	size_t payload_size;
	struct queue *queues;
	unsigned int queue_count;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum state state;
	pthread_t *threads;
	unsigned int count, max, prepared;
	int error;              /* of a thread that could not be prepared */
} uring = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static void *work(void *queue);

/* It takes no signals, as those who start it. An errno. The lock is held. */
static int start_thread(struct queue *queue)
{
	int error;

	if (uring.count == uring.max)
		return 0;
	atomic_fetch_add(&queue->available, 1);
	error = pthread_create(&uring.threads[uring.count], NULL, work, queue);
	if (error)
		atomic_fetch_sub(&queue->available, 1);
	else
		uring.count++;
	return error;
}

/* When the last thread of a queue is busy there must be another. */
static void lend_thread(struct queue *queue)
{
	static atomic_llong next;
	int error = 0;

	if (atomic_fetch_sub(&queue->available, 1) > 1)
		return;
	pthread_mutex_lock(&uring.lock);
	if (uring.state == SERVING)
		error = start_thread(queue);
	pthread_mutex_unlock(&uring.lock);
	if (error && log_is_due(&next))
		log_warning("cannot start a thread, requests wait for each other: %s", strerror(error));
}

/*
 * To where the programs run whose requests come by this queue, if the server may run there: it can have been bound to
 * other processors. It works from them, too.
 */
static void go_to_processor(unsigned int number)
{
	cpu_set_t *set = CPU_ALLOC(uring.queue_count);
	size_t size = CPU_ALLOC_SIZE(uring.queue_count);

	if (!set)
		return;
	if (!pthread_getaffinity_np(pthread_self(), size, set) && CPU_ISSET_S(number, size, set)) {
		CPU_ZERO_S(size, set);
		CPU_SET_S(number, size, set);
		pthread_setaffinity_np(pthread_self(), size, set);
	}
	CPU_FREE(set);
}

static bool is_serving(void)
{
	bool serving;

	pthread_mutex_lock(&uring.lock);
	serving = uring.state == SERVING;
	pthread_mutex_unlock(&uring.lock);
	return serving;
}

/* Tells that this thread has its entry, or why not, and waits until the kernel was told, too, or is not. */
static void wait_for_agreement(int error)
{
	pthread_mutex_lock(&uring.lock);
	uring.prepared++;
	if (error)
		uring.error = error;
	pthread_cond_broadcast(&uring.changed);
	while (uring.state == PREPARING)
		pthread_cond_wait(&uring.changed, &uring.lock);
	pthread_mutex_unlock(&uring.lock);
}

/* One that is not answered would keep its entry for ever. */
static void answer_request(const struct fuse_buf *request)
{
	const struct fuse_in_header *header = request->mem;

	requests_answer(uring.session, request);
	if (uring_entry_waits_for(header->unique)) {
		log_error("request %u was not answered", header->opcode);
		answer(fuse_session_fd(uring.session), header, EIO, NULL, 0);
	}
}

/* That the connection has ended is seen by those who read the device. */
static bool is_end(int error)
{
	return error == ENOTCONN || error == ECONNABORTED || error == ECANCELED;
}

static void serve(struct queue *queue, struct uring_entry *entry)
{
	struct fuse_buf request;
	int error;

	while (!(error = uring_entry_wait(entry, &request))) {
		lend_thread(queue);
		answer_request(&request);
		atomic_fetch_add(&queue->available, 1);
	}
	if (!is_end(error))
		uring.fail(error);
}

static void free_entry(void *entry)
{
	uring_entry_free(entry);
}

/* If it is the first of a queue that fails, the kernel goes on without io_uring. */
static bool register_entry(struct queue *queue, struct uring_entry *entry)
{
	static atomic_llong next;
	int error = uring_entry_register(entry);

	if (!error)
		return true;
	atomic_fetch_sub(&queue->available, 1);
	if (!is_end(error) && log_is_due(&next))
		log_warning("the kernel refused a thread's io_uring, requests wait for each other: %s", strerror(error));
	return false;
}

static void serve_and_free(struct queue *queue, struct uring_entry *entry)
{
	pthread_cleanup_push(free_entry, entry);
	if (is_serving() && register_entry(queue, entry))
		serve(queue, entry);
	pthread_cleanup_pop(true);
}

static struct uring_entry *new_entry(const struct queue *queue)
{
	struct uring_entry *entry;

	do {
		entry = uring_entry_new(fuse_session_fd(uring.session), queue->number, uring.payload_size);
	} while (!entry && descriptors_made_room());
	return entry;
}

/* For a thread that came later: what there is not enough of now there may be soon. NULL: the server ends. */
static struct uring_entry *new_entry_in_time(const struct queue *queue)
{
	static const struct timespec pause = { .tv_nsec = 100000000 };
	static atomic_llong next;
	struct uring_entry *entry;

	while (!(entry = new_entry(queue)) && is_serving()) {
		if (log_is_due(&next))
			log_warning("a thread has no io_uring, requests wait for each other: %s", strerror(errno));
		nanosleep(&pause, NULL);
	}
	return entry;
}

static void *work(void *argument)
{
	struct queue *queue = argument;
	struct uring_entry *entry;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	go_to_processor(queue->number);
	if (is_serving()) {
		entry = new_entry_in_time(queue);
	} else {
		entry = new_entry(queue);
		wait_for_agreement(entry ? 0 : errno);
	}
	if (entry)
		serve_and_free(queue, entry);
	return NULL;
}

static bool allocate(void)
{
	uring.queue_count = (unsigned int)get_nprocs_conf();
	uring.max = uring.queue_count + READERS_MAX;
	uring.queues = calloc(uring.queue_count, sizeof(*uring.queues));
	uring.threads = calloc(uring.max, sizeof(*uring.threads));
	return uring.queues && uring.threads;
}

/* A thread with an entry for each queue. An errno. */
static int prepare(void)
{
	int error = access("/sys/devices/system/cpu/possible", R_OK) || !allocate() ? errno : 0;

	pthread_mutex_lock(&uring.lock);
	uring.state = PREPARING;
	for (unsigned int i = 0; i < uring.queue_count && !error; i++) {
		uring.queues[i].number = i;
		error = start_thread(&uring.queues[i]);
	}
	while (uring.prepared < uring.count)
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

/* What the kernel demands, with the sizes that libfuse has answered. */
static size_t payload_of(const struct fuse_init_out *out)
{
	size_t size = (size_t)out->max_pages * (size_t)sysconf(_SC_PAGESIZE);

	if (size < out->max_write)
		size = out->max_write;
	return size < PAYLOAD_MIN ? PAYLOAD_MIN : size;
}

/* libfuse 3.17 does not know of it: the answer to INIT is completed on its way out. */
static ssize_t answer_init(int device, struct iovec *parts, int count)
{
	struct fuse_init_out *out = count > 1 ? parts[1].iov_base : NULL;
	ssize_t sent;
	int error;

	uring.init = 0;
	if (!out || parts[1].iov_len < sizeof(*out) || out->flags2 & URING_IN_FLAGS2)
		return answer_send(device, parts, count);
	uring.payload_size = payload_of(out);
	error = prepare();
	if (error)
		log_warning("no io_uring, requests are read: %s", strerror(error));
	else
		out->flags2 |= URING_IN_FLAGS2;
	sent = answer_send(device, parts, count);
	set_state(error || sent < 0 ? ENDING : SERVING);
	if (!error && sent >= 0)
		log_info("requests come by io_uring, by %u queues", uring.queue_count);
	return sent;
}

static ssize_t send_answer(int device, struct iovec *parts, int count, void *unused)
{
	const struct fuse_out_header *out = parts[0].iov_base;

	(void)unused;
	if (uring.init && out->unique == uring.init)
		return answer_init(device, parts, count);
	return answer_send(device, parts, count);
}

static ssize_t read_request(int device, void *memory, size_t size, void *unused)
{
	(void)unused;
	return read(device, memory, size);
}

void uring_offer(struct fuse_session *session, const void *request, size_t size, void (*fail)(int error))
{
	static const struct fuse_custom_io io = { .writev = send_answer, .read = read_request };
	const struct fuse_in_header *header = request;
	const struct fuse_init_in *in = body_of(header, size, sizeof(*in));

	if (!in || !(in->flags & FUSE_INIT_EXT) || !(in->flags2 & URING_IN_FLAGS2))
		return;
	uring.session = session;
	uring.fail = fail;
	uring.init = header->unique;
	if (fuse_session_custom_io(session, &io, sizeof(io), fuse_session_fd(session)))
		log_warning("libfuse does not let answers go by io_uring: requests are read");
}

void uring_end(void)
{
	unsigned int count;

	pthread_mutex_lock(&uring.lock);
	uring.state = ENDING;
	count = uring.count;
	pthread_mutex_unlock(&uring.lock);
	for (unsigned int i = 0; i < count; i++)
		pthread_cancel(uring.threads[i]);
	for (unsigned int i = 0; i < count; i++)
		pthread_join(uring.threads[i], NULL);
	free(uring.threads);
	free(uring.queues);
}
