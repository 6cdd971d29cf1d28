/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the public functions on queues and transfers share. */
#ifndef FDMABUF_API_H
#define FDMABUF_API_H

#include "queue/queue.h"

/* Returns -ECHILD if the queue is a parent's: it makes no progress in a child. */
int queue_check_process(const struct fdmabuf_queue *queue);

/* Returns a negative errno if the queue is a parent's, or broken. */
int queue_check(const struct fdmabuf_queue *queue);

/* Sets the timer of the queue's descriptor, if there is one, to when something is to be done. */
void queue_set_timer(struct fdmabuf_queue *queue);

#endif
