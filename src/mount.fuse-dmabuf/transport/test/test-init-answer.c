/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of init-answer.c: what server and kernel agree on beyond what libfuse knows. A socket takes
 * the place of /dev/fuse.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sys/socket.h>

#include "check.h"
#include "transport/init-answer.h"
#include "transport/uring-protocol.h"
#include "transport/uring.h"

#define UNIQUE 2

/* Stands for a flag of flags2 that the server accepts. */
#define ACCEPTED (1u << 28)

static int device, kernel;
static struct fuse_custom_io io;    /* what fuse_session_custom_io() was given */
static int threads_left;            /* how many pthread_create() still starts */
static uint32_t accepted = ACCEPTED;

int __wrap_fuse_session_fd(struct fuse_session *session);
int __wrap_fuse_session_custom_io_317(struct fuse_session *session,
				      const struct fuse_custom_io *given, size_t size, int fd);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*run)(void *), void *argument);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*run)(void *), void *argument);

int __wrap_fuse_session_fd(struct fuse_session *session)
{
	(void)session;
	return device;
}

int __wrap_fuse_session_custom_io_317(struct fuse_session *session,
				      const struct fuse_custom_io *given, size_t size, int fd)
{
	(void)session;
	CHECK_EQUAL(size, sizeof(io));
	CHECK_EQUAL(fd, device);
	io = *given;
	return 0;
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*run)(void *), void *argument)
{
	if (threads_left-- > 0)
		return __real_pthread_create(thread, attributes, run, argument);
	return EAGAIN;
}

static void fail(int error)
{
	CHECK_EQUAL(error, 0);
}

static void offer(uint32_t flags, uint32_t flags2)
{
	struct {
		struct fuse_in_header header;
		struct fuse_init_in in;
	} init = {
		.header = { .len = sizeof(init), .opcode = FUSE_INIT, .unique = UNIQUE },
		.in = { .major = 7, .minor = 45, .flags = flags, .flags2 = flags2 },
	};

	io = (struct fuse_custom_io){ 0 };
	init_answer_complete(NULL, &init, sizeof(init), accepted, fail);
}

/* Lets libfuse answer with flags2 = 1. Returns the flags2 of the answer that the kernel gets. */
static uint32_t answered_flags2(void)
{
	struct reply {
		struct fuse_out_header header;
		struct fuse_init_out out;
	} reply = {
		.header = { .len = sizeof(reply), .unique = UNIQUE },
		.out = {
			.major = 7, .minor = 40, .flags = FUSE_INIT_EXT, .flags2 = 1,
			.max_write = 1 << 20, .max_pages = 256,
		},
	}, got;
	struct iovec parts[] = {
		{ .iov_base = &reply.header, .iov_len = sizeof(reply.header) },
		{ .iov_base = &reply.out, .iov_len = sizeof(reply.out) },
	};

	CHECK_EQUAL(io.writev(device, parts, 2, NULL), (ssize_t)sizeof(reply));
	CHECK_EQUAL(recv(kernel, &got, sizeof(got), MSG_DONTWAIT), (ssize_t)sizeof(got));
	CHECK_EQUAL(got.header.unique, UNIQUE);
	uring_end();
	return got.out.flags2;
}

static void kernel_that_offers_nothing_is_asked_nothing(void)
{
	offer(FUSE_INIT_EXT, 0);
	CHECK(!io.writev);
	offer(0, URING_IN_FLAGS2 | ACCEPTED);
	CHECK(!io.writev);
}

static void io_uring_is_asked_for_when_all_threads_are_there(void)
{
	threads_left = 1 << 20;
	offer(FUSE_INIT_EXT, URING_IN_FLAGS2);
	CHECK_EQUAL(answered_flags2(), 1 | URING_IN_FLAGS2);
}

static void io_uring_is_not_asked_for_when_a_thread_is_missing(void)
{
	for (threads_left = 0; threads_left < 4; threads_left++) {
		int left = threads_left;

		offer(FUSE_INIT_EXT, URING_IN_FLAGS2);
		CHECK_EQUAL(answered_flags2(), 1);
		threads_left = left;
	}
}

static void what_the_server_accepts_is_asked_for_without_io_uring(void)
{
	threads_left = 0;
	offer(FUSE_INIT_EXT, ACCEPTED);
	CHECK_EQUAL(answered_flags2(), 1 | ACCEPTED);
}

static void what_the_server_accepts_is_asked_for_whether_io_uring_is_possible_or_not(void)
{
	threads_left = 1 << 20;
	offer(FUSE_INIT_EXT, URING_IN_FLAGS2 | ACCEPTED);
	CHECK_EQUAL(answered_flags2(), 1 | URING_IN_FLAGS2 | ACCEPTED);
	threads_left = 0;
	offer(FUSE_INIT_EXT, URING_IN_FLAGS2 | ACCEPTED);
	CHECK_EQUAL(answered_flags2(), 1 | ACCEPTED);
}

static void what_the_server_does_not_accept_is_not_asked_for(void)
{
	accepted = 0;
	threads_left = 1 << 20;
	offer(FUSE_INIT_EXT, ACCEPTED);
	CHECK(!io.writev);
	offer(FUSE_INIT_EXT, URING_IN_FLAGS2 | ACCEPTED);
	CHECK_EQUAL(answered_flags2(), 1 | URING_IN_FLAGS2);
}

/* Such an answer has no struct fuse_init_out, so there is no flags2 to write to. */
static void answer_of_an_older_protocol_is_left_as_it_is(void)
{
	struct fuse_out_header reply = {
		.len = sizeof(reply), .error = -EPROTO, .unique = UNIQUE,
	}, got;
	struct iovec part = { .iov_base = &reply, .iov_len = sizeof(reply) };

	offer(FUSE_INIT_EXT, URING_IN_FLAGS2 | ACCEPTED);
	CHECK_EQUAL(io.writev(device, &part, 1, NULL), (ssize_t)sizeof(reply));
	CHECK_EQUAL(recv(kernel, &got, sizeof(got), MSG_DONTWAIT), (ssize_t)sizeof(got));
	CHECK_EQUAL(got.error, -EPROTO);
}

int main(void)
{
	int sockets[2];

	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets));
	device = sockets[0];
	kernel = sockets[1];
	RUN(kernel_that_offers_nothing_is_asked_nothing);
	RUN(io_uring_is_not_asked_for_when_a_thread_is_missing);
	RUN(io_uring_is_asked_for_when_all_threads_are_there);
	RUN(what_the_server_accepts_is_asked_for_without_io_uring);
	RUN(what_the_server_accepts_is_asked_for_whether_io_uring_is_possible_or_not);
	RUN(answer_of_an_older_protocol_is_left_as_it_is);
	RUN(what_the_server_does_not_accept_is_not_asked_for);
	return 0;
}
