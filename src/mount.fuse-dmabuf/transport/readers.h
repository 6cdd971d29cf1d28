/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How many of libfuse's threads wait for requests. The kernel wakes waiting threads in turn, and each switch to
 * another thread, on a processor that slept, costs more than most requests do. So no more threads wait than the
 * requests keep busy, usually one; the others stand by.
 */
#ifndef READERS_H
#define READERS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* False: explained in the log. */
bool readers_begin(int device);
void readers_end(void);

/* Before this thread reads a request: returns when it is its turn. A cancellation point. */
void readers_take_turn(void);

/* This thread has a turn, and reads nothing for now: another gets it. */
void readers_pass_turn(void);

/* After it: what was read, or an error. */
void readers_got(const void *request, ssize_t size);

#endif
