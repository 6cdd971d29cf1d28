/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How requests get to the ring, and how their places become free again. */
#ifndef FDMABUF_SEND_H
#define FDMABUF_SEND_H

#include "queue/queue.h"

/* Submits requests that have waited, and frees those whose transfer has ended. */
void send_ready(struct fdmabuf_queue *queue);

/*
 * Submits new requests, one of each transfer in turn, so that a large transfer does not hold up
 * small ones. A transfer that had its turn goes to the end, because often only one request is free.
 */
void send_new(struct fdmabuf_queue *queue);

/* Frees a request that is complete, or whose transfer has ended. */
void send_free_request(struct fdmabuf_queue *queue, struct request *request);

/* Ends the requests of a transfer that has ended which are not in the queue. */
void send_free_parked(struct fdmabuf_transfer *t);

#endif
