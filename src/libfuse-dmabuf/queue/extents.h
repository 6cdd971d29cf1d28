/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Extents: the parts of files that a transfer moves. */
#ifndef FDMABUF_EXTENTS_H
#define FDMABUF_EXTENTS_H

#include "queue/queue.h"

/* Makes the extents of a transfer whose ranges are in order and have their uses. */
int extents_make(struct fdmabuf_transfer *t);

/*
 * In bytes: what is written in part goes through the page cache. Its pages must have no blocks that
 * are written directly.
 */
uint64_t extents_write_block(uint32_t block_size);

#endif
