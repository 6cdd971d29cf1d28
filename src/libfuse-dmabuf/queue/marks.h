/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Marks: random bytes in the buffer, where a direct read is about to put others. A mark that is
 * still there after the read shows that the read went elsewhere, also on a path that was proven.
 */
#ifndef FDMABUF_MARKS_H
#define FDMABUF_MARKS_H

#include "queue/queue.h"

/* Puts marks into the destination of a direct read, whose command it is, if a look is due. */
void marks_put(struct fdmabuf_queue *queue, struct request *request,
	       const struct ring_command *command);

/*
 * Looks for the marks after the request has completed with @result, and puts back what was there
 * where the request has not come to. If a mark is still there, the path is disproved.
 */
void marks_check(struct fdmabuf_queue *queue, struct request *request, int result);

#endif
