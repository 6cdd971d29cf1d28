/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests by io_uring instead of by reading the device, where the kernel offers it (module parameter enable_uring of
 * fuse): each processor has a queue, and threads bound to it, so that a request is answered where it is made and no
 * other processor must be woken. What interrupts or forgets is still read from the device.
 */
#ifndef URING_H
#define URING_H

#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdbool.h>

/*
 * Starts the threads, before the answer to INIT asks for io_uring. Returns false if that is not possible: the log says why,
 * and requests are read. An error that comes later is told by fail().
 */
bool uring_prepare(struct fuse_session *session, const struct fuse_init_out *out, void (*fail)(int error));

/* Lets the threads that uring_prepare() has started serve, or end if the kernel has not been told. */
void uring_begin(bool agreed);

/* When no more requests are to be answered. */
void uring_end(void);

#endif
