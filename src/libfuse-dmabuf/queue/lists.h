/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The lists of a queue's transfers. */
#ifndef FDMABUF_LISTS_H
#define FDMABUF_LISTS_H

#include "queue/queue.h"

static inline void list_append(struct fdmabuf_transfer ***end, struct fdmabuf_transfer *t)
{
	t->next = NULL;
	t->link = *end;
	**end = t;
	*end = &t->next;
}

static inline void list_remove_active(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t)
{
	*t->link = t->next;
	if (t->next)
		t->next->link = t->link;
	else
		queue->active_end = t->link;
}

#endif
