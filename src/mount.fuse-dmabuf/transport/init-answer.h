/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Completes the answer to INIT, by which kernel and server agree on how they work together, with what libfuse 3.17 does
 * not know: FUSE over io_uring, and what the server accepts beside.
 */
#ifndef INIT_ANSWER_H
#define INIT_ANSWER_H

#include <fuse_lowlevel.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Looks at what the kernel offers by the request INIT, before libfuse gets it, so that the answer is completed on its way
 * out, with the flags of flags2 that are @accepted. An error of io_uring that comes later is told by fail().
 */
void init_answer_complete(struct fuse_session *session, const void *request, size_t size, uint32_t accepted,
			  void (*fail)(int error));

#endif
