/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one state machine of a queue: sends requests, takes their results, and ends transfers. */
#ifndef FDMABUF_LOOP_H
#define FDMABUF_LOOP_H

#include "queue/queue.h"

/* Makes a planned transfer active. */
void loop_add(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t);

/* Does all that can be done without waiting. */
void loop_advance(struct fdmabuf_queue *queue);

/* Does the same, and calls the progress functions. */
void loop_poll(struct fdmabuf_queue *queue);

/*
 * Does all that can be done, waits until something has completed, a signal comes, or a timer is
 * due, for @timeout ms at most (-1: for ever), and calls the progress functions.
 */
void loop_wait(struct fdmabuf_queue *queue, int64_t timeout);

/*
 * Submits what loop_wait() has left for its next call. A function that has waited ends with this
 * one, so that the device works on while nobody waits.
 */
void loop_flush(struct fdmabuf_queue *queue);

/* Tells the progress functions of transfers that have finished of the end, each one once. */
void loop_report_ends(struct fdmabuf_queue *queue);

/* Cancels a transfer that is active. It finishes when no request of it is in flight. */
void loop_cancel(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t);

/*
 * Returns when loop_advance() is to be called even if nothing completes, in monotonic ms; 0 =
 * never.
 */
int64_t loop_next_timer(const struct fdmabuf_queue *queue);

#endif
