/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The direct and the bounce path. Each says how a request is submitted, and gives a verdict on its
 * result: the request has moved on, ends, is to be tried again, or goes on by the other path.
 */
#ifndef FDMABUF_PATH_H
#define FDMABUF_PATH_H

#include "queue/queue.h"

/*
 * Set the command for the rest of a request, or as much of it as goes at once. *pieces is room for
 * PIECES_MAX pieces, or NULL without vectors.
 */
void direct_prepare(struct fdmabuf_queue *queue, struct request *request, struct iovec *pieces,
		    struct ring_command *command);
/* Returns a negative errno if the buffer cannot be read. */
int bounce_prepare(struct fdmabuf_queue *queue, struct request *request,
		   struct ring_command *command);

/*
 * Handle the result of a request. If the request is not complete afterwards, it is submitted again.
 * The direct path may change the kind of the request to PART_BOUNCE or PART_PLAIN.
 */
void direct_complete(struct fdmabuf_queue *queue, struct request *request, int result);
void bounce_complete(struct fdmabuf_queue *queue, struct request *request, int result);

/*
 * Writes the zeros of a hole or an unwritten extent at the position of a read through the exporter,
 * and moves the request on.
 */
void skip_hole(struct fdmabuf_queue *queue, struct request *request);

#endif
