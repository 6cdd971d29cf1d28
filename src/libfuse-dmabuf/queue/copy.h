/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copies between buffers and host memory: the page cache, or bounce memory. */
#ifndef FDMABUF_COPY_H
#define FDMABUF_COPY_H

#include "queue/queue.h"

/*
 * Does the copy of the request, in any thread, and sets its result. Nothing of the request changes
 * meanwhile in the thread of the queue.
 */
void copy_run(struct request *request);

/*
 * Returns the result of the copy: the number of bytes, or a negative errno, and then sets the text.
 */
int64_t copy_take_result(struct request *request);

#endif
