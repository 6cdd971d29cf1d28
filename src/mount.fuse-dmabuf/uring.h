/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests by io_uring instead of by reading the device, where the kernel offers it (module parameter enable_uring of
 * fuse): each processor has a queue, and threads bound to it, so that a request is answered where it is made and no
 * other processor must be woken. What interrupts or forgets is still read from the device.
 */
#ifndef URING_H
#define URING_H

#include <fuse_lowlevel.h>

/*
 * To be called with the request INIT, before libfuse gets it: when its answer goes out, threads are started and io_uring
 * is asked for. If that is not possible the log says why, and requests are read. What fails later, fail() is told.
 */
void uring_offer(struct fuse_session *session, const void *request, size_t size, void (*fail)(int error));

/* When no more requests are to be answered. */
void uring_end(void);

#endif
