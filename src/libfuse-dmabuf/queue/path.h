/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The direct path, direct I/O and bounce. Each says how a request is submitted, and gives a verdict
 * on its result: the request has moved on, ends, is to be tried again, or goes on by another path.
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
void direct_io_prepare(struct request *request, struct iovec *pieces, struct ring_command *command);
/* What is to be written has been copied to the bounce memory: see bounce_set_copy_out(). */
void bounce_prepare(struct fdmabuf_queue *queue, struct request *request,
		   struct ring_command *command);

/*
 * Handle the result of a request. If the request is not complete afterwards, it is submitted again.
 * The kind of the request may change to PART_BOUNCE or PART_PLAIN.
 */
void direct_complete(struct fdmabuf_queue *queue, struct request *request, int result);
void direct_io_complete(struct fdmabuf_queue *queue, struct request *request, int result);
void bounce_complete(struct fdmabuf_queue *queue, struct request *request, int result);

/* Records the bytes of a write, which ends early if space or quota run out. */
void direct_note_written(struct fdmabuf_queue *queue, struct request *request, uint32_t bytes);

/*
 * Set the copy of the next bytes of a request. bounce_set_copy_in() returns false if the result of
 * a command has nothing to copy: bounce_complete() handles it.
 */
void bounce_set_cached(struct fdmabuf_queue *queue, struct request *request);
bool bounce_set_copy_in(struct fdmabuf_queue *queue, struct request *request, int result);
void bounce_set_copy_out(struct fdmabuf_queue *queue, struct request *request);

/* Handles the result of such a copy, a number of bytes. */
void bounce_copied(struct fdmabuf_queue *queue, struct request *request, uint64_t bytes);

/*
 * Writes the zeros of a hole or an unwritten extent at the position of a read through the exporter,
 * and moves the request on.
 */
void skip_hole(struct fdmabuf_queue *queue, struct request *request);

#endif
