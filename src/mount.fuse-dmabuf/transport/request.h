/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One request: decides who answers it, and by which way the answer goes to the kernel. */
#ifndef REQUEST_H
#define REQUEST_H

#include <sys/uio.h>

#include "transport/transport.h"

/* Sets who answers requests. @session and @server must last as long as requests come. */
void request_begin(struct fuse_session *session, const struct transport_server *server);

/* Has the server answer the request, or libfuse if the server leaves the request to libfuse. */
void request_dispatch(const struct fuse_buf *request);

/*
 * Sends an answer, a struct fuse_out_header and its body, by the way by which the request came. An
 * answer by io_uring goes out later, when this thread waits for the next request or calls
 * uring_entry_commit(). Returns the number of bytes, or -1 with errno set.
 */
ssize_t request_send_answer(int device, const struct iovec *parts, int count);

#endif
