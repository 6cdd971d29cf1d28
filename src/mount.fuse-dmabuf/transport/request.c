/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Dispatches requests to the server or libfuse, and sends answers to the kernel. */
#include <sys/uio.h>

#include "transport/request.h"
#include "transport/uring-entry.h"

static struct {
	struct fuse_session *session;
	const struct transport_server *server;
} handlers;

void request_begin(struct fuse_session *session, const struct transport_server *server)
{
	handlers.session = session;
	handlers.server = server;
}

void request_dispatch(const struct fuse_buf *request)
{
	if (!handlers.server->answer(fuse_session_fd(handlers.session), request->mem,
				     request->size))
		fuse_session_process_buf(handlers.session, request);
}

ssize_t request_send_answer(int device, const struct iovec *parts, int count)
{
	const struct fuse_out_header *out = parts[0].iov_base;

	return uring_entry_has_request(out->unique) ? uring_entry_set_answer(parts, count) :
						      writev(device, parts, count);
}

bool transport_answer(int device, const struct fuse_in_header *header, int error, const void *body,
		      size_t size)
{
	struct fuse_out_header out = {
		.len = (uint32_t)(sizeof(out) + size), .error = -error, .unique = header->unique,
	};
	struct iovec parts[] = {
		{ .iov_base = &out, .iov_len = sizeof(out) },
		{ .iov_base = (void *)body, .iov_len = size },
	};

	return request_send_answer(device, parts, size ? 2 : 1) >= 0 && uring_entry_commit();
}

const void *transport_body(const struct fuse_in_header *header, size_t size, size_t wanted)
{
	if (header->len != size || size < sizeof(*header) + wanted)
		return NULL;
	return header + 1;
}
