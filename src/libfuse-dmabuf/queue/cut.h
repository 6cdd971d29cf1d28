/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How a transfer becomes requests. */
#ifndef FDMABUF_CUT_H
#define FDMABUF_CUT_H

#include "queue/queue.h"

/* Begins with the first extent of the transfer's phase. */
void cut_from_start(struct fdmabuf_transfer *t);

/* Begins again with what is moved after the proof. */
void cut_again(struct fdmabuf_transfer *t);

/* Goes on to the next phase that the transfer can have something to do in. */
void cut_next_phase(struct fdmabuf_transfer *t);

/* Returns true if the phase has more than the requests that exist. */
bool cut_has_more(struct fdmabuf_transfer *t);

/*
 * Returns the next request, in a place of the queue, or NULL if there is none, no place is free, or
 * the file or its token has to be recovered first.
 */
struct request *cut_next_request(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t);

/* Records of a transfer that ends early that what was never cut has not moved. */
void cut_note_rest(struct fdmabuf_transfer *t);

#endif
