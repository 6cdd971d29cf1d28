/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One entry of FUSE over io_uring: its memory, its ring, and the commands to the kernel. */
#include <errno.h>
#include <liburing.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "transport/uring-entry.h"
#include "transport/uring-protocol.h"

/* New in Linux 6.15; the installed headers may be older. */
#ifndef IORING_ENTER_NO_IOWAIT
#define IORING_ENTER_NO_IOWAIT (1u << 7)
#define IORING_FEAT_NO_IOWAIT (1u << 17)
#endif

/*
 * Bytes before the payload. They hold the header, and right before the payload there is room to put
 * the parts of a request together.
 */
#define PAYLOAD_OFFSET 4096u

struct uring_entry {
	struct io_uring ring;
	unsigned int enter_flags;
	int device;
	unsigned int queue;
	struct uring_header *header;
	char *payload;
	size_t payload_size;
	struct iovec areas[2];
	uint64_t unique;        /* number of the request that must be answered, or 0 */
	bool has_answer;        /* the entry has an answer that the kernel does not have yet */
};

static _Thread_local struct uring_entry *own_entry;

static bool allocate_memory(struct uring_entry *entry, size_t payload_size)
{
	char *memory = mmap(NULL, PAYLOAD_OFFSET + payload_size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return false;
	entry->header = (struct uring_header *)memory;
	entry->payload = memory + PAYLOAD_OFFSET;
	entry->payload_size = payload_size;
	entry->areas[0] = (struct iovec){
		.iov_base = entry->header, .iov_len = sizeof(*entry->header),
	};
	entry->areas[1] = (struct iovec){ .iov_base = entry->payload, .iov_len = payload_size };
	return true;
}

/*
 * Returns 0 or a negative errno. IORING_SETUP_DEFER_TASKRUN: the kernel need not interrupt a thread
 * to tell it of a completion that it waits for.
 */
static int begin_ring(struct uring_entry *entry)
{
	int error = io_uring_queue_init(1, &entry->ring, IORING_SETUP_SQE128 |
					IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);

	if (error)
		return error;
	entry->enter_flags = IORING_ENTER_GETEVENTS;
	if (entry->ring.features & IORING_FEAT_NO_IOWAIT)
		entry->enter_flags |= IORING_ENTER_NO_IOWAIT;
	/* A registered ring needs no descriptor; descriptors are kept for the users' files. */
	if (io_uring_register_ring_fd(&entry->ring) == 1 &&
	    io_uring_close_ring_fd(&entry->ring) == 1)
		entry->enter_flags |= IORING_ENTER_REGISTERED_RING;
	return 0;
}

struct uring_entry *uring_entry_new(int device, unsigned int queue, size_t payload_size)
{
	struct uring_entry *entry = calloc(1, sizeof(*entry));
	int error;

	if (!entry)
		return NULL;
	entry->queue = queue;
	if (!allocate_memory(entry, payload_size)) {
		free(entry);
		return NULL;
	}
	entry->device = device;
	error = begin_ring(entry);
	if (error) {
		munmap(entry->header, PAYLOAD_OFFSET + payload_size);
		free(entry);
		errno = -error;
		return NULL;
	}
	own_entry = entry;
	return entry;
}

void uring_entry_free(struct uring_entry *entry)
{
	/*
	 * Gives the last answer if the thread was cancelled just before it gave it: the request has
	 * been carried out, and its caller must learn that.
	 */
	io_uring_submit(&entry->ring);
	io_uring_queue_exit(&entry->ring);
	munmap(entry->header, PAYLOAD_OFFSET + entry->payload_size);
	free(entry);
	own_entry = NULL;
}

/* Fills the submission of @command. The ring has room for it: there is never more than one. */
static void prepare_submission(struct uring_entry *entry, enum uring_command command)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&entry->ring);
	struct uring_request *request = (struct uring_request *)sqe->cmd;

	/*
	 * The device is not a registered file: a ring lets go of such a file some time after its
	 * process has ended, and until then the mount and all tokens would go on without their
	 * server.
	 */
	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, entry->device, entry->areas, 2, 0);
	sqe->cmd_op = command;
	*request = (struct uring_request){ .queue = (uint16_t)entry->queue };
	if (command == URING_COMMIT_AND_FETCH)
		request->commit_id = entry->header->entry.commit_id;
}

/*
 * Puts a request together as it would be read from the device: header, first argument, the rest.
 * The rest is in the payload, the other two are copied to the bytes before it. Returns false if the
 * sizes that the kernel gave do not fit.
 */
static bool compose_request(struct uring_entry *entry, struct fuse_buf *request)
{
	struct fuse_in_header header;
	size_t rest = entry->header->entry.payload_size, first;
	char *start;

	memcpy(&header, entry->header->in_out, sizeof(header));
	if (header.len < sizeof(header) + rest || rest > entry->payload_size)
		return false;
	first = header.len - sizeof(header) - rest;
	if (first > sizeof(entry->header->operation))
		return false;
	start = entry->payload - first;
	memcpy(start, entry->header->operation, first);
	start -= sizeof(header);
	memcpy(start, &header, sizeof(header));
	*request = (struct fuse_buf){ .mem = start, .size = header.len };
	entry->unique = header.unique;
	return true;
}

/*
 * Does what io_uring_submit_and_wait() does, but is a cancellation point, and with
 * IORING_ENTER_NO_IOWAIT the processors of an idle server do not appear to wait for a disk. The
 * thread holds nothing during the system call, so asynchronous cancellation is safe here.
 */
static int submit_and_wait(struct uring_entry *entry)
{
	struct io_uring_sq *sq = &entry->ring.sq;
	int type, result;

	sq->sqe_head = sq->sqe_tail;
	io_uring_smp_store_release(sq->ktail, sq->sqe_tail);
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	result = io_uring_enter((unsigned int)entry->ring.enter_ring_fd,
				io_uring_sq_ready(&entry->ring), 1, entry->enter_flags, NULL);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_setcanceltype(type, NULL);
	return result;
}

int uring_entry_wait(struct uring_entry *entry, struct fuse_buf *request)
{
	struct io_uring_cqe *cqe;
	int result;

	if (entry->has_answer)
		prepare_submission(entry, URING_COMMIT_AND_FETCH);
	entry->has_answer = false;
	while (io_uring_peek_cqe(&entry->ring, &cqe) || io_uring_sq_ready(&entry->ring)) {
		result = submit_and_wait(entry);
		if (result < 0 && result != -EINTR)
			return -result;
	}
	result = cqe->res;
	io_uring_cqe_seen(&entry->ring, cqe);
	if (result < 0)
		return -result;
	return compose_request(entry, request) ? 0 : EPROTO;
}

/*
 * Submits @command without waiting for a request. Returns 0 or an errno: a command that the kernel
 * refuses completes during its submission.
 */
static int submit(struct uring_entry *entry, enum uring_command command)
{
	struct io_uring_cqe *cqe;
	int result;

	prepare_submission(entry, command);
	result = io_uring_submit(&entry->ring);
	if (result < 0)
		return -result;
	return !io_uring_peek_cqe(&entry->ring, &cqe) && cqe->res < 0 ? -cqe->res : 0;
}

int uring_entry_register(struct uring_entry *entry)
{
	return submit(entry, URING_REGISTER);
}

bool uring_entry_has_request(uint64_t unique)
{
	return own_entry && unique && own_entry->unique == unique;
}

ssize_t uring_entry_set_answer(const struct iovec *parts, int count)
{
	size_t size = 0;

	for (int i = 1; i < count; i++)
		size += parts[i].iov_len;
	if (size > own_entry->payload_size) {
		errno = EINVAL;
		return -1;
	}
	memcpy(own_entry->header->in_out, parts[0].iov_base, sizeof(struct fuse_out_header));
	own_entry->header->entry.payload_size = (uint32_t)size;
	size = 0;
	for (int i = 1; i < count; i++) {
		memcpy(own_entry->payload + size, parts[i].iov_base, parts[i].iov_len);
		size += parts[i].iov_len;
	}
	own_entry->unique = 0;
	own_entry->has_answer = true;
	return (ssize_t)(sizeof(struct fuse_out_header) + size);
}

bool uring_entry_commit(void)
{
	if (!own_entry || !own_entry->has_answer)
		return true;
	own_entry->has_answer = false;
	return !submit(own_entry, URING_COMMIT_AND_FETCH);
}
