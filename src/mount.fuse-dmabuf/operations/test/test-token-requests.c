/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests valid and malformed token requests, with a socket in the place of /dev/fuse. */
#include <errno.h>
#include <grp.h>
#include <linux/fuse.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "broker/broker.h"
#include "broker/test/test-policy.h"
#include "broker/token-protocol.h"
#include "identity/processes.h"
#include "log/log.h"
#include "log/test/test-said.h"
#include "nodes/test/test-node.h"
#include "operations/file.h"
#include "operations/token-requests.h"

struct create {
	struct fuse_in_header header;
	struct fuse_dmabuf_token_in in;
};

struct release {
	struct fuse_in_header header;
	struct fuse_dmabuf_token_release_in in;
};

struct answer {
	struct fuse_out_header header;
	struct fuse_dmabuf_token_out out;
};

static struct inode *node;
static struct file file = { .flags = O_RDWR | O_DIRECT };
static int device, kernel;

static struct create good_create(void)
{
	return (struct create){
		.header = {
			.len = sizeof(struct create), .opcode = FUSE_DMABUF_TOKEN_CREATE,
			.unique = 42, .nodeid = node->nodeid, .uid = 1000, .gid = 1000,
			.pid = (uint32_t)getpid(),
		},
		.in = {
			.fh = (uintptr_t)&file, .token = 5, .size = 4096,
			.direction = FUSE_DMABUF_TOKEN_READ, .exporter = "udmabuf",
		},
	};
}

static struct release good_release(void)
{
	return (struct release){
		.header = {
			.len = sizeof(struct release), .opcode = FUSE_DMABUF_TOKEN_RELEASE,
			.unique = 43, .nodeid = node->nodeid,
		},
		.in = { .fh = (uintptr_t)&file, .token = 5, .requests = 1, .read_bytes = 4096 },
	};
}

/* Sends a request. The answer must be one message, of the length that its header has. */
static struct answer ask(const void *request, size_t size)
{
	struct answer answer = { 0 };
	ssize_t got;

	CHECK(token_requests_answer(device, request, size));
	got = recv(kernel, &answer, sizeof(answer), MSG_DONTWAIT);
	CHECK_EQUAL(got, answer.header.len);
	CHECK_EQUAL(answer.header.unique, ((const struct fuse_in_header *)request)->unique);
	return answer;
}

static int error_of(const struct create *create, size_t size)
{
	struct answer answer = ask(create, size);

	CHECK_EQUAL(answer.header.len, sizeof(answer.header));
	return -answer.header.error;
}

static void end_token(void)
{
	struct release release = good_release();
	struct answer answer = ask(&release, sizeof(release));

	CHECK_EQUAL(answer.header.len, sizeof(answer.header));
	CHECK_EQUAL(answer.header.error, 0);
}

static void token_is_granted_and_released(void)
{
	struct create create = good_create();
	struct answer answer = ask(&create, sizeof(create));

	CHECK_EQUAL(answer.header.error, 0);
	CHECK_EQUAL(answer.header.len, sizeof(answer));
	CHECK_EQUAL(answer.out.direction, FUSE_DMABUF_TOKEN_READ);
	CHECK_EQUAL(answer.out.padding, 0);
	CHECK_EQUAL(broker_state(1000).user.bytes, 4096);
	end_token();
	CHECK_EQUAL(broker_state(0).all.tokens, 0);
}

static void other_requests_are_left_to_libfuse(void)
{
	struct create create = good_create();
	struct answer answer;

	create.header.opcode = FUSE_READ;
	CHECK(!token_requests_answer(device, &create, sizeof(create)));
	CHECK(!token_requests_answer(device, &create, sizeof(create.header) - 1));
	CHECK(!token_requests_answer(device, &create, 0));
	CHECK(recv(kernel, &answer, sizeof(answer), MSG_DONTWAIT) < 0);
}

static void extensions_after_the_request_are_allowed(void)
{
	struct {
		struct create create;
		char extension[8];
	} request = { .create = good_create() };

	request.create.header.len = sizeof(request);
	request.create.header.total_extlen = 1;
	CHECK_EQUAL(ask(&request, sizeof(request)).header.error, 0);
	end_token();
}

static void wrong_lengths_are_refused(void)
{
	struct create create = good_create();

	CHECK_EQUAL(error_of(&create, sizeof(create) - 1), EINVAL);
	for (size_t size = sizeof(create.header); size < sizeof(create); size++) {
		create.header.len = (uint32_t)size;
		CHECK_EQUAL(error_of(&create, size), EINVAL);
	}
	create.header.len = UINT32_MAX;
	CHECK_EQUAL(error_of(&create, sizeof(create)), EINVAL);
}

static void wrong_fields_are_refused(void)
{
	struct create requests[5];

	for (int i = 0; i < 5; i++)
		requests[i] = good_create();
	requests[0].in.direction = 0;
	requests[1].in.direction = 4 | FUSE_DMABUF_TOKEN_READ;
	requests[2].in.padding = 1;
	requests[3].in.size = 0;
	requests[4].in.direction = UINT32_MAX;
	for (int i = 0; i < 5; i++)
		CHECK_EQUAL(error_of(&requests[i], sizeof(requests[i])), EINVAL);
	CHECK_EQUAL(broker_state(0).all.tokens, 0);
}

static void file_must_be_open_and_of_that_node(void)
{
	struct create create = good_create();

	create.in.fh = 0;
	CHECK_EQUAL(error_of(&create, sizeof(create)), EBADF);
	create.in.fh = (uintptr_t)&file + 8;
	CHECK_EQUAL(error_of(&create, sizeof(create)), EBADF);
	create = good_create();
	create.header.nodeid = FUSE_ROOT_ID;
	CHECK_EQUAL(error_of(&create, sizeof(create)), EBADF);
	create.header.nodeid = 0;
	CHECK_EQUAL(error_of(&create, sizeof(create)), EBADF);
	open_files_remove(&file);
	create = good_create();
	CHECK_EQUAL(error_of(&create, sizeof(create)), EBADF);
	open_files_add(&file);
}

static void exporter_needs_no_nul_and_may_hold_any_bytes(void)
{
	struct create create = good_create();

	memset(create.in.exporter, '\n', sizeof(create.in.exporter));
	CHECK_EQUAL(ask(&create, sizeof(create)).header.error, 0);
	end_token();
}

static void refusal_has_the_brokers_errno(void)
{
	struct create create = good_create();

	broker_set_policy(test_policy(false, 4095));
	CHECK_EQUAL(error_of(&create, sizeof(create)), EDQUOT);
	broker_set_policy(test_policy(true, UINT64_MAX));
	CHECK_EQUAL(error_of(&create, sizeof(create)), EPERM);
	broker_set_policy(test_policy(false, UINT64_MAX));
}

/* Returns what the log says when a token is refused to a process. */
static const char *refusal_of(pid_t pid)
{
	struct create create = good_create();
	const char *said;

	create.header.pid = (uint32_t)pid;
	log_set_level(LOG_WARNING);
	said_begin();
	CHECK_EQUAL(error_of(&create, sizeof(create)), EACCES);
	said = said_end();
	log_set_level(LOG_EMERG);
	CHECK_EQUAL(broker_state(0).all.tokens, 0);
	return said;
}

/* The kernel sends pid 0 for a process in a PID namespace that the server does not see. */
static void process_without_a_number_is_refused_and_the_cure_is_named(void)
{
	CHECK(strstr(refusal_of(0), "PID namespace that the server does not see "
				    "(start the server in one that"));
}

static void process_that_has_ended_is_refused(void)
{
	pid_t child = fork();

	if (!child)
		_exit(0);
	CHECK_EQUAL(waitpid(child, NULL, 0), child);
	CHECK(strstr(refusal_of(child), "exporter udmabuf: its process has ended\n"));
}

static void process_in_very_many_groups_is_refused(void)
{
	static gid_t groups[OWNER_GROUPS_MAX + 1];
	int ready[2];
	pid_t child;
	char byte;

	CHECK(!pipe(ready));
	child = fork();
	if (!child) {
		for (size_t i = 0; i <= OWNER_GROUPS_MAX; i++)
			groups[i] = 5000 + (gid_t)i;
		_exit(setgroups(OWNER_GROUPS_MAX + 1, groups) || write(ready[1], "", 1) != 1 ||
		      pause());
	}
	CHECK(read(ready[0], &byte, 1) == 1);
	CHECK(strstr(refusal_of(child), "exporter udmabuf: its process is in too many groups\n"));
	CHECK(!kill(child, SIGKILL) && waitpid(child, NULL, 0) == child);
	close(ready[0]);
	close(ready[1]);
}

static void malformed_or_unknown_release_is_answered_and_changes_nothing(void)
{
	struct create create = good_create();
	struct release release = good_release();

	CHECK_EQUAL(ask(&create, sizeof(create)).header.error, 0);
	release.in.token = 6;
	CHECK_EQUAL(ask(&release, sizeof(release)).header.error, 0);
	release = good_release();
	release.header.len--;
	CHECK_EQUAL(ask(&release, sizeof(release)).header.error, 0);
	release.header.len = sizeof(release.header);
	CHECK_EQUAL(ask(&release, sizeof(release.header)).header.error, 0);
	CHECK_EQUAL(broker_state(0).all.tokens, 1);
	end_token();
	CHECK_EQUAL(broker_state(0).all.tokens, 0);
}

/* This test must be the last: it closes the kernel's side of the socket. */
static void grant_that_nobody_takes_is_withdrawn(void)
{
	struct create create = good_create();

	close(kernel);
	CHECK(token_requests_answer(device, &create, sizeof(create)));
	CHECK_EQUAL(broker_state(0).all.tokens, 0);
}

int main(void)
{
	int sockets[2];

	signal(SIGPIPE, SIG_IGN);
	log_set_level(LOG_EMERG);
	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets));
	device = sockets[0];
	kernel = sockets[1];
	CHECK(processes_begin());
	nodes_begin();
	node = file.inode = node_lookup("file");
	open_files_add(&file);
	broker_begin(test_policy(false, UINT64_MAX));
	RUN(token_is_granted_and_released);
	RUN(other_requests_are_left_to_libfuse);
	RUN(extensions_after_the_request_are_allowed);
	RUN(wrong_lengths_are_refused);
	RUN(wrong_fields_are_refused);
	RUN(file_must_be_open_and_of_that_node);
	RUN(exporter_needs_no_nul_and_may_hold_any_bytes);
	RUN(refusal_has_the_brokers_errno);
	RUN(process_without_a_number_is_refused_and_the_cure_is_named);
	RUN(process_that_has_ended_is_refused);
	RUN(process_in_very_many_groups_is_refused);
	RUN(malformed_or_unknown_release_is_answered_and_changes_nothing);
	RUN(grant_that_nobody_takes_is_withdrawn);
	open_files_remove(&file);
	broker_end();
	CHECK_EQUAL(node->lookups, 1);
	inode_forget(node, 1);
	node_remove("file");
	nodes_end();
	processes_end();
	close(device);
	return 0;
}
