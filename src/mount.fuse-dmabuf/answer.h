/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests that libfuse does not know, in the form of <linux/fuse.h>. They are answered where they are read. */
#ifndef ANSWER_H
#define ANSWER_H

#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>

/* False: the kernel no longer waits for this answer, or the connection has ended. */
bool answer(int device, const struct fuse_in_header *header, int error, const void *body, size_t size);

/* The body of a request, if the request has all of it. Extensions may follow. */
const void *body_of(const struct fuse_in_header *header, size_t size, size_t wanted);

#endif
