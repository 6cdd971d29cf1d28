/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An entry: memory into which the kernel puts one request at a time, and from which it takes the
 * answer, with an io_uring to wait for requests. An entry belongs to one thread: the kernel hands a
 * request over in the context of the thread that gave the last answer.
 */
#ifndef URING_ENTRY_H
#define URING_ENTRY_H

#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct uring_entry;

/*
 * Makes the entry of the calling thread, for answers whose body has at most @payload_size bytes.
 * Returns NULL with errno set if that fails. The thread frees it with uring_entry_free().
 */
struct uring_entry *uring_entry_new(int device, unsigned int queue, size_t payload_size);
void uring_entry_free(struct uring_entry *entry);

/*
 * Gives the entry to the kernel, which may use it from then on. Called once. Returns 0, or an errno
 * as uring_entry_wait() does.
 */
int uring_entry_register(struct uring_entry *entry);

/*
 * Gives the answer in the entry to the kernel, if there is one, and waits for a request, which
 * stays in the entry until it is answered. The only cancellation point of this file. Returns 0, or
 * an errno: ENOTCONN when the connection has ended.
 */
int uring_entry_wait(struct uring_entry *entry, struct fuse_buf *request);

/* Returns true if the calling thread's entry has this request, and no answer to it yet. */
bool uring_entry_has_request(uint64_t unique);

/*
 * Puts the answer, a struct fuse_out_header and its body, into the calling thread's entry. Returns
 * the number of bytes, or -1 with errno set.
 */
ssize_t uring_entry_set_answer(const struct iovec *parts, int count);

/*
 * Gives the answer in the calling thread's entry, if there is one, to the kernel without waiting
 * for a request. Returns false if the kernel no longer waits for the answer.
 */
bool uring_entry_commit(void);

#endif
