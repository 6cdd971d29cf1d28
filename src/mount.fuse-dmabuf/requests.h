/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests of the kernel, whatever way they come: some are answered here, what libfuse knows by libfuse. */
#ifndef REQUESTS_H
#define REQUESTS_H

#include <fuse_lowlevel.h>

void requests_answer(struct fuse_session *session, const struct fuse_buf *request);

#endif
