/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checks the kernel's requests about tokens, asks the broker, and answers. */
#include <errno.h>
#include <inttypes.h>
#include <linux/fuse.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/token-log.h"
#include "broker/token-protocol.h"
#include "log/log.h"
#include "operations/file.h"
#include "operations/token-requests.h"
#include "transport/transport.h"

static bool is_valid(const struct fuse_dmabuf_token_in *in)
{
	return in->size && in->direction && !(in->direction & ~TOKEN_BOTH) && !in->padding;
}

/* Replaces blanks and control characters, which would confuse programs that read the log. */
static void copy_exporter(char name[33], const char *exporter)
{
	memcpy(name, exporter, 32);
	name[32] = '\0';
	for (char *c = name; *c; c++) {
		if (*c <= ' ' || *c > '~')
			*c = '?';
	}
}

/*
 * Returns the reason why owner_read_process() failed with @error. The kernel sends pid 0 for a
 * process that has no number in the server's PID namespace.
 */
static const char *unknown_groups_reason(pid_t pid, int error)
{
	if (!pid)
		return "its process is in a PID namespace that the server does not see "
		       "(start the server in one that contains those of the programs, best in the "
		       "initial one)";
	switch (error) {
	case EACCES:
		return "its process has ended";
	case E2BIG:
		return "its process is in too many groups";
	case ENFILE:
		return "no descriptor is left to look its groups up";
	default:
		return strerror(error);
	}
}

/*
 * Asks the broker. The owner's groups are read first, because rules and limits may be about groups.
 * Returns an errno, or 0.
 */
static int grant(struct token_request *request, uint32_t *direction)
{
	int error;

	if (owner_read_process(&request->owner, request->pid))
		return broker_grant(request, direction);
	error = errno;
	token_log_refused(request, unknown_groups_reason(request->pid, error));
	return error == E2BIG ? EACCES : error;
}

/* Returns 0 and sets *direction to the directions that were granted, or returns an errno. */
static int create_token(const struct fuse_in_header *header, const struct fuse_dmabuf_token_in *in,
			uint32_t *direction)
{
	struct token_request request;
	int error;

	if (!in || !is_valid(in)) {
		log_warning("a malformed token request of pid %u was refused", header->pid);
		return EINVAL;
	}
	request = (struct token_request){
		.id = in->token, .size = in->size, .direction = in->direction,
		.owner = { .uid = header->uid, .gid = header->gid }, .pid = (pid_t)header->pid,
	};
	request.inode = open_files_find(in->fh, header->nodeid, &request.open_flags);
	if (!request.inode)
		return EBADF;
	copy_exporter(request.exporter, in->exporter);
	error = grant(&request, direction);
	inode_let_go(request.inode);
	return error;
}

static void answer_create(int device, const struct fuse_in_header *header, size_t size)
{
	const struct fuse_dmabuf_token_in *in = transport_body(header, size, sizeof(*in));
	struct fuse_dmabuf_token_out out = { 0 };
	int error = create_token(header, in, &out.direction);

	if (error)
		transport_answer(device, header, error, NULL, 0);
	else if (transport_answer(device, header, 0, &out, sizeof(out)))
		broker_answered(in->token);
	else
		broker_withdraw(in->token);
}

static void answer_release(int device, const struct fuse_in_header *header, size_t size)
{
	const struct fuse_dmabuf_token_release_in *in = transport_body(header, size, sizeof(*in));

	if (!in)
		log_warning("a malformed release of a token was ignored");
	else if (!broker_release(&(struct token_end){
			.id = in->token, .requests = in->requests, .read_bytes = in->read_bytes,
			.write_bytes = in->write_bytes, .reason = in->reason }))
		log_warning("the release of token %" PRIu64 ", which was not granted, was ignored",
			    in->token);
	transport_answer(device, header, 0, NULL, 0);
}

bool token_requests_answer(int device, const void *request, size_t size)
{
	const struct fuse_in_header *header = request;

	if (size < sizeof(*header))
		return false;
	switch (header->opcode) {
	case FUSE_DMABUF_TOKEN_CREATE:
		answer_create(device, header, size);
		return true;
	case FUSE_DMABUF_TOKEN_RELEASE:
		answer_release(device, header, size);
		return true;
	default:
		return false;
	}
}
