/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers to requests, and requests that libfuse does not know, in the form of <linux/fuse.h>. */
#ifndef ANSWER_H
#define ANSWER_H

#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

/*
 * The way its request came, by io_uring when this thread asks for the next one: a struct fuse_out_header and what follows.
 * The bytes, or -1 (see errno).
 */
ssize_t answer_send(int device, const struct iovec *parts, int count);

/* At once. False: the kernel no longer waits for this answer, or the connection has ended. */
bool answer(int device, const struct fuse_in_header *header, int error, const void *body, size_t size);

/* The body of a request, if the request has all of it. Extensions may follow. */
const void *body_of(const struct fuse_in_header *header, size_t size, size_t wanted);

#endif
