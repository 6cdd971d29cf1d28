/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Blocks of buffers that have bytes of ranges from several places. */
#ifndef FDMABUF_SHARED_BLOCKS_H
#define FDMABUF_SHARED_BLOCKS_H

#include "queue/transfer.h"

/* Finds them, for a transfer with FDMABUF_WHOLE_BLOCKS. Returns 0 or a negative errno. */
int shared_blocks_find(struct fdmabuf_transfer *t);

/* Returns true if the first or last block (@end) of the range at @place is one of them. */
bool shared_blocks_has(const struct fdmabuf_transfer *t, size_t place, unsigned end);

#endif
