/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One request: who answers it, and how the answer goes to the kernel. */
#ifndef REQUEST_H
#define REQUEST_H

#include <sys/uio.h>

#include "transport/transport.h"

/* Sets what request_dispatch() needs. Both must last as long as requests come. */
void request_begin(struct fuse_session *session, const struct transport_server *server);

/* Has the request answered by the server, or, if libfuse knows it, by libfuse. */
void request_dispatch(const struct fuse_buf *request);

/*
 * Sends an answer in the way its request came, by io_uring when this thread asks for the next one: a struct
 * fuse_out_header and what follows. Returns the bytes, or -1 with errno set.
 */
ssize_t request_send_answer(int device, const struct iovec *parts, int count);

#endif
