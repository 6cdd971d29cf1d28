/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Plans: what becomes of the ranges of an operation. */
#ifndef FDMABUF_PLAN_H
#define FDMABUF_PLAN_H

#include "queue/queue.h"
#include "queue/transfer.h"

/*
 * Makes a transfer of an operation: checks the ranges, gets their pairs and tokens, and cuts and
 * joins the ranges to extents. Returns a negative errno, and then nothing has happened.
 */
int plan_transfer(struct fdmabuf_queue *queue, const struct fdmabuf_operation *operation,
		  struct fdmabuf_transfer **transfer);

/*
 * Says why a range of a pair that is direct is not direct, or not all of it. Sets @text, of
 * REASON_TEXT_SIZE bytes. Returns FDMABUF_REASON_NONE, _UNALIGNED or _PARTIAL_BLOCK.
 */
enum fdmabuf_reason plan_explain(enum fdmabuf_direction direction,
				 const struct fdmabuf_range *range, uint32_t block_size,
				 uint64_t buffer_size, unsigned flags, char *text);

/* Returns true if the range has a block that no other range can share. */
bool plan_has_whole_blocks(enum fdmabuf_direction direction, const struct fdmabuf_range *range,
			   uint32_t block_size);

#endif
