/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How transfers end. */
#ifndef FDMABUF_FINISH_H
#define FDMABUF_FINISH_H

#include "queue/queue.h"

/*
 * Moves transfers on to their next phase, and ends those that are complete. Returns true if there
 * was any.
 */
bool finish_transfers(struct fdmabuf_queue *queue);

#endif
