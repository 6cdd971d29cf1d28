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

/* @end: NULL in a child, which adds to no list. */
static inline void list_remove(struct fdmabuf_transfer ***end, struct fdmabuf_transfer *t)
{
	*t->link = t->next;
	if (t->next)
		t->next->link = t->link;
	else if (end)
		*end = t->link;
	t->link = NULL;
}

#endif
