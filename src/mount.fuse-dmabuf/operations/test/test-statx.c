/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests valid and malformed STATX requests, with a socket in the place of /dev/fuse. */
#include <errno.h>
#include <linux/fuse.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "nodes/test/test-node.h"
#include "operations/cache.h"
#include "operations/statx.h"

struct request {
	struct fuse_in_header header;
	struct fuse_statx_in in;
};

struct reply {
	struct fuse_out_header header;
	struct fuse_statx_out out;
};

static struct inode *node;
static int device, kernel;

static struct request good_request(void)
{
	return (struct request){
		.header = {
			.len = sizeof(struct request), .opcode = FUSE_STATX, .unique = 42,
			.nodeid = node->nodeid,
		},
		.in = { .sx_mask = STATX_BASIC_STATS | STATX_BTIME },
	};
}

static struct reply ask(const struct request *request, size_t size)
{
	struct reply reply = { 0 };

	CHECK(statx_answer(device, request, size));
	CHECK_EQUAL(recv(kernel, &reply, sizeof(reply), MSG_DONTWAIT), reply.header.len);
	CHECK_EQUAL(reply.header.unique, request->header.unique);
	return reply;
}

static int error_of(const struct request *request, size_t size)
{
	struct reply reply = ask(request, size);

	CHECK_EQUAL(reply.header.len, sizeof(reply.header));
	return -reply.header.error;
}

static void all_attributes_of_the_source_are_reported(void)
{
	struct request request = good_request();
	struct reply reply = ask(&request, sizeof(request));
	struct statx expected;

	CHECK(!statx(node->fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &expected));
	CHECK_EQUAL(reply.header.error, 0);
	CHECK_EQUAL(reply.header.len, sizeof(reply));
	CHECK_EQUAL(reply.out.attr_valid, 1);
	CHECK_EQUAL(reply.out.stat.mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
	CHECK_EQUAL(reply.out.stat.ino, expected.stx_ino);
	CHECK_EQUAL(reply.out.stat.mode, expected.stx_mode);
	CHECK_EQUAL(reply.out.stat.mask & STATX_BTIME, expected.stx_mask & STATX_BTIME);
	CHECK_EQUAL(reply.out.stat.btime.tv_sec, expected.stx_btime.tv_sec);
	CHECK_EQUAL(reply.out.stat.btime.tv_nsec, expected.stx_btime.tv_nsec);
}

static void unknown_node_is_stale(void)
{
	struct request request = good_request();

	request.header.nodeid++;
	CHECK_EQUAL(error_of(&request, sizeof(request)), ESTALE);
}

static void malformed_requests_are_refused(void)
{
	struct request request = good_request();

	CHECK_EQUAL(error_of(&request, sizeof(request) - 1), EINVAL);
	request.header.len = sizeof(request.header);
	CHECK_EQUAL(error_of(&request, sizeof(request.header)), EINVAL);
}

static void other_requests_are_not_answered(void)
{
	struct request request = good_request();

	CHECK(!statx_answer(device, &request, sizeof(request.header) - 1));
	request.header.opcode = FUSE_GETATTR;
	CHECK(!statx_answer(device, &request, sizeof(request)));
	CHECK(recv(kernel, &request, sizeof(request), MSG_DONTWAIT) < 0);
}

int main(void)
{
	int pair[2];

	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
	device = pair[0];
	kernel = pair[1];
	cache_begin(CACHE_AUTO, false);
	nodes_begin();
	node = node_lookup("file");
	RUN(all_attributes_of_the_source_are_reported);
	RUN(unknown_node_is_stale);
	RUN(malformed_requests_are_refused);
	RUN(other_requests_are_not_answered);
	CHECK_EQUAL(node->lookups, 1);
	inode_forget(node, 1);
	node_remove("file");
	nodes_end();
	return 0;
}
