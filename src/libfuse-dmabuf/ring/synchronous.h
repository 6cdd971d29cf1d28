/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands that are carried out by system calls, where io_uring is not available. */
#ifndef FDMABUF_SYNCHRONOUS_H
#define FDMABUF_SYNCHRONOUS_H

#include "ring/ring.h"

struct synchronous;

/* Returns NULL, with errno set, without memory or descriptors. */
struct synchronous *synchronous_open(unsigned depth);
void synchronous_close(struct synchronous *synchronous);
void synchronous_queue(struct synchronous *synchronous, const struct ring_command *command,
		       void *tag);

/* Carries the oldest command out, and returns what it has moved. Returns false if there is none. */
bool synchronous_next(struct synchronous *synchronous, void **tag, int *result);

/*
 * Waits until there is a command, or @fd is readable (-1: no descriptor), for @timeout ms at most
 * (-1: for ever). Returns 0 or -EINTR.
 */
int synchronous_wait(const struct synchronous *synchronous, int timeout, int fd);

/* Returns a descriptor that is readable while there are commands. */
int synchronous_fd(const struct synchronous *synchronous);

#endif
