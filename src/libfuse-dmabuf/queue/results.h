/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What becomes of requests that have completed. */
#ifndef FDMABUF_RESULTS_H
#define FDMABUF_RESULTS_H

#include "queue/queue.h"

/* Takes all results that there are. */
void results_take(struct fdmabuf_queue *queue);

/* Records that the kernel has the request no more; @result is what it returned. */
void results_note_completion(struct fdmabuf_queue *queue, struct request *request, int result);

#endif
