/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An entry is where the kernel puts one request at a time, and takes the answer from; with an io_uring to wait for it.
 * It is of one thread: the kernel hands requests over in the context of the thread that gave the last answer.
 */
#ifndef URING_ENTRY_H
#define URING_ENTRY_H

#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct uring_entry;

/* Of this thread, for answers of as many bytes. NULL: see errno. */
struct uring_entry *uring_entry_new(int device, unsigned int queue, size_t payload_size);
void uring_entry_free(struct uring_entry *entry);

/* Once: from here on the kernel may use it. 0, or an errno as of uring_entry_wait(). */
int uring_entry_register(struct uring_entry *entry);

/*
 * Gives the answer that is there, and waits for a request, which stays until it is answered. A cancellation point, the
 * only one. 0, or an errno: ENOTCONN when the connection has ended.
 */
int uring_entry_wait(struct uring_entry *entry, struct fuse_buf *request);

/* Whether this thread has the request of this number in its entry, and has not answered it. */
bool uring_entry_waits_for(uint64_t unique);

/* Puts the answer to it there, a struct fuse_out_header and what follows: the bytes, or -1 (see errno). */
ssize_t uring_entry_put(const struct iovec *parts, int count);

/* Gives it to the kernel now. False: it no longer waits for it. */
bool uring_entry_give(void);

#endif
