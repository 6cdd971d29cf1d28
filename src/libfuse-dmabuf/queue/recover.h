/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What happens after a token or a FUSE server has ended. */
#ifndef FDMABUF_RECOVER_H
#define FDMABUF_RECOVER_H

#include "queue/queue.h"

/* Returns true if no request of the use can be submitted until recover_transfer() has helped. */
bool use_needs_recovery(const struct use *use);

/*
 * Gets new tokens, looks for new mounts, switches pairs to bounce, or ends the transfer, without
 * waiting. What requests are in flight for comes first.
 */
void recover_transfer(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t);

/*
 * Compares the files that were read on more than one mount with what they were at the start: ends
 * the transfer with -ESTALE if one has changed.
 */
void check_reopened_files(struct fdmabuf_transfer *t);

#endif
