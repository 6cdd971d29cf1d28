/* SPDX-License-Identifier: GPL-2.0-or-later */
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

/* A name without blanks or control characters, which would confuse readers of the log. */
static void copy_exporter(char name[33], const char *exporter)
{
	memcpy(name, exporter, 32);
	name[32] = '\0';
	for (char *c = name; *c; c++) {
		if (*c <= ' ' || *c > '~')
			*c = '?';
	}
}

/* Why the groups of a process are not known, or not taken. The kernel has no number for one that this namespace does not have. */
static const char *why_unknown(pid_t pid, int error)
{
	if (!pid)
		return "its process is in a PID namespace that the server does not see "
		       "(start the server in one that the programs' namespaces are in, best the initial one)";
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

/* The request's groups are read first: rules and limits may be about them. */
static int grant(struct token_request *request, uint32_t *direction)
{
	int error;

	if (owner_read_process(&request->owner, request->pid))
		return broker_grant(request, direction);
	error = errno;
	token_log_refused(request, why_unknown(request->pid, error));
	return error == E2BIG ? EACCES : error;
}

static int create(const struct fuse_in_header *header, const struct fuse_dmabuf_token_in *in,
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
	int error = create(header, in, &out.direction);

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
		log_warning("the release of token %" PRIu64 ", which was not granted, was ignored", in->token);
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
