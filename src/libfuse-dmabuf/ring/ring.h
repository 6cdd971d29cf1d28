/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring/ is the way to the kernel: an io_uring whose buffer table has a slot for host memory and
 * slots for tokens, or, where io_uring is not available, system calls that wait.
 * May call: nothing.
 */
#ifndef FDMABUF_RING_H
#define FDMABUF_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct ring;

/* The slot of host memory. Tokens have the slots from 1 on. */
#define RING_SLOT_HOST 0u
/* Stands for host memory that is in no slot: the pages of a buffer. */
#define RING_SLOT_NONE UINT32_MAX

enum ring_kind { RING_READ, RING_WRITE, RING_SYNC };

struct ring_command {
	enum ring_kind kind;
	int fd;
	uint64_t file_offset;
	unsigned slot;
	/*
	 * Where the memory is: addresses in the slot of host memory and in no slot, offsets of the
	 * dma-buf in others. More than one piece needs a token that the kernel takes vectors of, or
	 * no slot. The array has to stay until the command has completed. None for RING_SYNC.
	 */
	const struct iovec *pieces;
	unsigned count;
};

/*
 * Opens a ring for @depth commands in flight and @tokens tokens. If io_uring is not available, sets
 * *reason to a positive errno that says why and opens a ring of system calls. Returns 0 or a
 * negative errno, and sets no text.
 */
int ring_open(unsigned depth, unsigned tokens, struct ring **ring, int *reason);

/* Ends the tokens and frees the ring. No command is in flight. */
void ring_close(struct ring *ring);

/* Frees the copy of a ring that a child has after fork(2): the ring stays the parent's. */
void ring_forget(struct ring *ring);

/* Returns true if commands go by io_uring. */
bool ring_is_uring(const struct ring *ring);

/* Returns true if the kernel supports the registration of dma-bufs. */
bool ring_has_tokens(struct ring *ring);

/* Register a dma-buf for requests on @file_fd, in place of what the slot had, and end a token. */
int ring_register_token(struct ring *ring, unsigned slot, int dmabuf_fd, int file_fd);
void ring_end_token(struct ring *ring, unsigned slot);

/*
 * Registers host memory for RING_SLOT_HOST. The registration is optional: it saves pinning the
 * pages in each command.
 */
int ring_register_host(struct ring *ring, void *memory, size_t length);

/* Queues a command, whose completion carries @tag. There are at most @depth at a time. */
void ring_queue(struct ring *ring, const struct ring_command *command, void *tag);

/* Asks the kernel to cancel the command with @tag, which completes in any case. */
void ring_cancel(struct ring *ring, void *tag);

/*
 * Submits what is queued. ring_wait() then waits for at least one completion, or until @fd is
 * readable (-1: no descriptor), for @timeout ms at most (-1: for ever). Both return -EINTR if a
 * signal interrupted, and -EAGAIN or -EBUSY if the kernel lacks memory for now. Any other error
 * means that the ring is broken, and comes again: see ring_take_back().
 */
int ring_submit(struct ring *ring);
int ring_wait(struct ring *ring, int timeout, int fd);

/* Takes one completion from the ring. Returns false if there is none. */
bool ring_next(struct ring *ring, void **tag, int *result);

/*
 * Of a broken ring: takes back a command that the kernel has not seen. Returns false if there is
 * none. All others complete as usual.
 */
bool ring_take_back(struct ring *ring, void **tag);

/* Returns a descriptor that is readable while there are completions. */
int ring_fd(const struct ring *ring);

#endif
