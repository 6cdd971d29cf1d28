/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Serves requests that come by io_uring instead of by reading the device, where the kernel offers
 * that (module parameter enable_uring of fuse). Each processor has a queue, and threads bound to
 * that processor, so that a request is answered where it is made and no other processor must be
 * woken. FUSE_INTERRUPT, FUSE_FORGET and FUSE_BATCH_FORGET are still read from the device.
 */
#ifndef URING_H
#define URING_H

#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdbool.h>

/*
 * Starts the threads. The caller then asks for io_uring in @out, the answer to INIT, and calls
 * uring_begin(). Returns false if io_uring is not possible: the log says why, and requests are read
 * from the device. A thread calls fail() for an error that comes later.
 */
bool uring_prepare(struct fuse_session *session, const struct fuse_init_out *out,
		   void (*fail)(int error));

/*
 * Lets the threads that uring_prepare() has started serve. If @agreed is false, the kernel did not
 * get the answer to INIT, and they end.
 */
void uring_begin(bool agreed);

/* Ends the threads, after which no request that comes by io_uring is answered. */
void uring_end(void);

#endif
