/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bounce memory of a queue: host memory between files and buffers. */
#ifndef FDMABUF_HOST_MEMORY_H
#define FDMABUF_HOST_MEMORY_H

#include "queue/queue.h"

/* Allocates the memory unless the queue has it already. @buffer is copied to or from. */
int host_memory_need(struct fdmabuf_queue *queue, struct fdmabuf_buffer *buffer);
/* Frees the memory, if there is any. The ring is closed. */
void host_memory_free(struct fdmabuf_queue *queue);

#endif
