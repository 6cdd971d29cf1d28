/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Takes the requests about tokens, which libfuse does not know, out of the stream of requests. */
#ifndef TOKEN_REQUESTS_H
#define TOKEN_REQUESTS_H

#include <fuse_lowlevel.h>
#include <stdbool.h>

/* Before the loop, after the mount. False: explained in the log. */
bool token_requests_begin(struct fuse_session *session);

/* Answers the request on the device it came from, if it is about tokens. False: it is libfuse's. */
bool token_requests_answer(int device, const void *request, size_t size);

#endif
