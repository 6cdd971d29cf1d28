/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests valid and malformed SYNCFS requests, with a socket in the place of /dev/fuse. */
#include <errno.h>
#include <linux/fuse.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "identity/privileges.h"
#include "nodes/test/test-node.h"
#include "operations/syncfs.h"

struct request {
	struct fuse_in_header header;
	struct fuse_syncfs_in in;
};

static int device, kernel;

/* The calls of syncfs(2), which the test replaces. */
static struct {
	int fd;                 /* of the last call */
	int calls;              /* how many there were */
	int error;              /* the errno that the next call fails with; 0: none */
	uint64_t capabilities;  /* of the thread at the last call */
} sync_call;

int __wrap_syncfs(int fd);

int __wrap_syncfs(int fd)
{
	sync_call.fd = fd;
	sync_call.calls++;
	sync_call.capabilities = privileges_effective();
	errno = sync_call.error;
	return sync_call.error ? -1 : 0;
}

static struct request good_request(void)
{
	return (struct request){
		.header = {
			.len = sizeof(struct request), .opcode = FUSE_SYNCFS, .unique = 42,
			.nodeid = FUSE_ROOT_ID,
		},
	};
}

/* Returns the error of the answer, which must be a header alone. */
static int error_of(const struct request *request, size_t size)
{
	struct fuse_out_header reply[2];

	CHECK(syncfs_answer(device, request, size));
	CHECK_EQUAL(recv(kernel, reply, sizeof(reply), MSG_DONTWAIT), (ssize_t)sizeof(*reply));
	CHECK_EQUAL(reply->len, sizeof(*reply));
	CHECK_EQUAL(reply->unique, request->header.unique);
	return -reply->error;
}

static void file_system_of_the_source_is_synchronized(void)
{
	struct request request = good_request();
	struct stat synchronized, root;

	sync_call.calls = 0;
	CHECK_EQUAL(error_of(&request, sizeof(request)), 0);
	CHECK_EQUAL(sync_call.calls, 1);
	CHECK(!fstat(sync_call.fd, &synchronized) && !fstat(node_root()->fd, &root));
	CHECK(synchronized.st_dev == root.st_dev && synchronized.st_ino == root.st_ino);
	/* The real syncfs(2) fails with an O_PATH descriptor. */
	CHECK(!(fcntl(sync_call.fd, F_GETFL) & O_PATH));
}

static void error_is_reported(void)
{
	struct request request = good_request();

	sync_call.error = EIO;
	CHECK_EQUAL(error_of(&request, sizeof(request)), EIO);
	sync_call.error = 0;
	CHECK_EQUAL(error_of(&request, sizeof(request)), 0);
}

/* A new descriptor would not report data that was lost before it was opened. */
static void each_request_uses_the_same_descriptor(void)
{
	struct request request = good_request();
	int first;

	CHECK_EQUAL(error_of(&request, sizeof(request)), 0);
	first = sync_call.fd;
	CHECK_EQUAL(error_of(&request, sizeof(request)), 0);
	CHECK_EQUAL(sync_call.fd, first);
}

static void no_capabilities_are_used(void)
{
	struct request request = good_request();
	uint64_t own = privileges_effective();

	sync_call.capabilities = own;
	CHECK_EQUAL(error_of(&request, sizeof(request)), 0);
	CHECK_EQUAL(sync_call.capabilities, 0);
	CHECK_EQUAL(privileges_effective(), own);
}

static void malformed_requests_are_refused(void)
{
	struct request request = good_request();

	sync_call.calls = 0;
	CHECK_EQUAL(error_of(&request, sizeof(request) - 1), EINVAL);
	request.header.len = sizeof(request.header);
	CHECK_EQUAL(error_of(&request, sizeof(request.header)), EINVAL);
	CHECK_EQUAL(sync_call.calls, 0);
}

static void other_requests_are_not_answered(void)
{
	struct request request = good_request();

	CHECK(!syncfs_answer(device, &request, sizeof(request.header) - 1));
	request.header.opcode = FUSE_FSYNCDIR;
	CHECK(!syncfs_answer(device, &request, sizeof(request)));
	CHECK(recv(kernel, &request, sizeof(request), MSG_DONTWAIT) < 0);
}

int main(void)
{
	int pair[2];

	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
	device = pair[0];
	kernel = pair[1];
	nodes_begin();
	CHECK_EQUAL(syncfs_init_flags2(), 0);
	syncfs_begin(node_root()->fd);
	CHECK_EQUAL(syncfs_init_flags2(), SYNCFS_IN_FLAGS2);
	RUN(file_system_of_the_source_is_synchronized);
	RUN(error_is_reported);
	RUN(each_request_uses_the_same_descriptor);
	RUN(no_capabilities_are_used);
	RUN(malformed_requests_are_refused);
	RUN(other_requests_are_not_answered);
	syncfs_end();
	nodes_end();
	return 0;
}
