/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Completes the answer to INIT by sending libfuse's answers itself (fuse_session_custom_io()). */
#include <linux/fuse.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "log/log.h"
#include "transport/init-answer.h"
#include "transport/request.h"
#include "transport/uring-protocol.h"
#include "transport/uring.h"

static struct {
	struct fuse_session *session;
	void (*fail)(int error);
	uint32_t accepted;      /* flags of flags2 that the server accepts */
	uint64_t unique;        /* number of the request INIT, or 0 when it has been answered */
	uint32_t offered;       /* flags of flags2 that the kernel offers */
} init;

/* Returns true if the kernel offers the flag and libfuse has not accepted it already. */
static bool may_add(const struct fuse_init_out *out, uint32_t flag)
{
	return init.offered & flag && !(out->flags2 & flag);
}

static ssize_t send_init_answer(int device, struct iovec *parts, int count)
{
	struct fuse_init_out *out = count > 1 ? parts[1].iov_base : NULL;
	bool uring;
	ssize_t sent;

	init.unique = 0;
	if (!out || parts[1].iov_len < sizeof(*out))
		return request_send_answer(device, parts, count);
	out->flags2 |= init.offered & init.accepted;
	uring = may_add(out, URING_IN_FLAGS2) && uring_prepare(init.session, out, init.fail);
	if (uring)
		out->flags2 |= URING_IN_FLAGS2;
	sent = request_send_answer(device, parts, count);
	if (uring)
		uring_begin(sent >= 0);
	return sent;
}

static ssize_t write_answer(int device, struct iovec *parts, int count, void *unused)
{
	const struct fuse_out_header *out = parts[0].iov_base;

	(void)unused;
	if (init.unique && out->unique == init.unique)
		return send_init_answer(device, parts, count);
	return request_send_answer(device, parts, count);
}

static ssize_t read_request(int device, void *memory, size_t size, void *unused)
{
	(void)unused;
	return read(device, memory, size);
}

void init_answer_complete(struct fuse_session *session, const void *request, size_t size,
			  uint32_t accepted, void (*fail)(int error))
{
	static const struct fuse_custom_io io = { .writev = write_answer, .read = read_request };
	const struct fuse_in_header *header = request;
	const struct fuse_init_in *in = transport_body(header, size, sizeof(*in));

	if (!in || !(in->flags & FUSE_INIT_EXT) || !(in->flags2 & (URING_IN_FLAGS2 | accepted)))
		return;
	init.session = session;
	init.fail = fail;
	init.accepted = accepted;
	init.unique = header->unique;
	init.offered = in->flags2;
	if (fuse_session_custom_io(session, &io, sizeof(io), fuse_session_fd(session)))
		log_warning("libfuse does not let the answer to INIT be completed: "
			    "no io_uring, no syncfs(2)");
}
