/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Surrounds what a transfer does with the pages of a buffer by one call to the exporter before, and
 * one after. A call for each copy would cost more than the copy: the kernel looks at all pages of a
 * dma-buf each time. With several threads it would be wrong, too: one could discard from the cache
 * of the processor what another has just written.
 */
#include "queue/access.h"

int access_need(struct fdmabuf_transfer *t, struct use *use)
{
	int ret = use->has_access ? 0 : buffer_begin_access(use->pair->buffer,
							    t->direction == FDMABUF_READ);

	use->has_access |= !ret;
	return ret;
}

void access_end(struct fdmabuf_transfer *t)
{
	for (size_t i = 0; i < t->use_count; i++) {
		struct use *use = &t->uses[i];
		int ret = use->has_access ? buffer_end_access(use->pair->buffer,
							      t->direction == FDMABUF_READ) : 0;

		use->has_access = false;
		if (!ret)
			continue;
		transfer_stop(t, ret);
		if (t->direction == FDMABUF_READ)
			transfer_note_nothing(t, use);
	}
}
