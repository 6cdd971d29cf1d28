/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The threads of a queue that copy, on several processors and while requests are in flight. */
#ifndef FDMABUF_COPIERS_H
#define FDMABUF_COPIERS_H

#include "queue/queue.h"

/*
 * In bytes: a thread that sleeps takes as long to wake up as a copy of so many bytes, which the
 * thread of the queue therefore makes itself.
 */
#define COPY_BY_THREAD_MIN (128u << 10)

/* Returns true if a copy of so many bytes is worth a thread, and there may be threads. */
bool copiers_are_for(const struct fdmabuf_queue *queue, uint64_t bytes);

/*
 * Has a thread do the copy of a request, or does it at once, if it is small or there are no
 * threads. copiers_next() returns a request whose copy has been done, or NULL.
 */
void copiers_give(struct fdmabuf_queue *queue, struct request *request);
struct request *copiers_next(struct fdmabuf_queue *queue);

/* Returns a descriptor that is readable while threads have done copies; -1 without threads. */
int copiers_fd(const struct fdmabuf_queue *queue);

/* Ends the threads, which have no copies left. */
void copiers_close(struct fdmabuf_queue *queue);

/* Frees what a child has of them after fork(2): the threads stay the parent's. */
void copiers_forget(struct fdmabuf_queue *queue);

#endif
