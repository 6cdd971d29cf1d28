/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One call of fdmabuf_channel_read(), shared by its parts. */
#ifndef FDMABUF_TRANSFER_H
#define FDMABUF_TRANSFER_H

#include "internal.h"

struct transfer {
	struct fdmabuf_channel *channel;
	uint64_t start, stop;		/* what the caller wants, offsets in the file */
	uint64_t shift;			/* offset in the buffer minus offset in the file, modulo 2^64 */
	uint64_t cursor, end;		/* what the requests have still to be cut from */
	uint64_t eof;			/* lowest offset at which the file turned out to end */
	uint64_t done;			/* bytes, for progress */
	bool direct;			/* how this transfer goes, whatever the channel's path is */
	bool stale;			/* a request met a token that has ended */
	bool lost;			/* the FUSE server has ended */
	bool renewed;			/* the broker has been asked for a new token */
	unsigned returns;		/* how often the mount has been waited for */
	unsigned flying;
	int error;			/* 0 or the negative errno that ends the transfer */
};

/* The two ways to read: queue what is left of a request, and take its result. A request that is
 * not yet read to its end is queued again. */
void direct_submit(struct transfer *t, struct request *request);
void direct_complete(struct transfer *t, struct request *request, int result);
void bounce_submit(struct transfer *t, struct request *request);
void bounce_complete(struct transfer *t, struct request *request, int result);

/* Whether a token or a mount has ended, or another channel has found the file on a new mount: then no request
 * is to be submitted, and once none is in flight, transfer_recover() does what is left to do: a new token,
 * a new mount, bounce for the rest, or an error. */
static inline bool transfer_is_held(const struct transfer *t)
{
	return t->stale || t->lost || t->channel->generation != t->channel->file->generation;
}

void transfer_recover(struct transfer *t);

/* Copies a range with pread(2): for partial blocks, and for what cannot be done better. */
void copy_range(struct transfer *t, uint64_t position, uint64_t end);

/* Notes progress of a request. */
void transfer_advance(struct transfer *t, struct request *request, uint64_t bytes);
void transfer_at_eof(struct transfer *t, struct request *request);

/* Notes that a request made none; after too many times in a row, the transfer fails with @error. */
void transfer_again(struct transfer *t, struct request *request, int error);

/* Ends the transfer because of what a request gave (a positive errno), or of a failure that has set the text (a
 * negative one). If that is because the FUSE server has ended, the transfer is only held. */
void transfer_fail(struct transfer *t, uint64_t position, int error);
void transfer_stop(struct transfer *t, int ret);

/* Calls the progress function, which may cancel the transfer. */
void transfer_report(struct transfer *t);

#endif
