/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Completes the answer to INIT, by which kernel and server agree on how they work together, with
 * what libfuse 3.17 does not know: FUSE over io_uring, and flags that the server accepts.
 */
#ifndef INIT_ANSWER_H
#define INIT_ANSWER_H

#include <fuse_lowlevel.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Notes what the kernel offers in the request INIT, before libfuse gets the request. The answer of
 * libfuse is completed on its way to the kernel, with those of the flags @accepted that the kernel
 * offers in flags2, and with io_uring if that is possible. Calls fail() if io_uring fails later.
 */
void init_answer_complete(struct fuse_session *session, const void *request, size_t size,
			  uint32_t accepted, void (*fail)(int error));

#endif
