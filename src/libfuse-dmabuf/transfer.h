/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The state of one call of fdmabuf_channel_read(), and the functions that work on it. */
#ifndef FDMABUF_TRANSFER_H
#define FDMABUF_TRANSFER_H

#include "internal.h"

struct transfer {
	struct fdmabuf_channel *channel;
	uint64_t start, stop;		/* the range of the caller, as offsets in the file */
	uint64_t shift;			/* buffer offset minus file offset, modulo 2^64 */
	uint64_t cursor, end;		/* the range that is not yet cut into requests */
	uint64_t eof;			/* lowest offset at which a read found the file's end */
	uint64_t done;			/* bytes, for the progress function */
	bool is_direct;			/* this transfer's path; the channel's path may differ */
	bool token_has_ended;		/* a request failed with ESTALE */
	bool server_has_ended;		/* the FUSE server, and with it the token */
	bool has_asked_for_token;	/* the broker was asked for a new token */
	unsigned mount_waits;		/* number of times that the mount was waited for */
	unsigned in_flight;		/* requests */
	int error;			/* 0, or the negative errno that ends the transfer */
};

/*
 * The direct and the bounce path. *_submit() queues the rest of a request, *_complete() handles its
 * result. A request that is not complete after this is queued again.
 */
void direct_submit(struct transfer *t, struct request *request);
void direct_complete(struct transfer *t, struct request *request, int result);
void bounce_submit(struct transfer *t, struct request *request);
void bounce_complete(struct transfer *t, struct request *request, int result);

/*
 * Returns true if the token or the FUSE server has ended, or another channel has reopened the file
 * on a new mount. Then no request may be submitted until transfer_recover() has been called, which
 * needs all requests to have completed.
 */
static inline bool transfer_needs_recovery(const struct transfer *t)
{
	return t->token_has_ended || t->server_has_ended ||
	       t->channel->generation != t->channel->file->generation;
}

/*
 * Gets a new token, waits for a new mount, switches to bounce for the rest of the range, or sets
 * t->error. Caller has no request in flight.
 */
void transfer_recover(struct transfer *t);

/* Copies a range with pread(2): partial blocks, and ranges that no other path can read. */
void copy_range(struct transfer *t, uint64_t position, uint64_t end);

/* Records that @bytes of the request have arrived. */
void transfer_advance(struct transfer *t, struct request *request, uint64_t bytes);

/* Records that the file ends at the position of the request, and completes the request. */
void transfer_at_eof(struct transfer *t, struct request *request);

/*
 * Records that the request made no progress and will be submitted again. After too many tries in a
 * row the transfer fails with @error (a positive errno).
 */
void transfer_retry(struct transfer *t, struct request *request, int error);

/*
 * End the transfer: transfer_fail() with @error (a positive errno) of a request and a text that
 * says so, transfer_stop() with @ret (a negative errno) of a function that has set the text. If the
 * cause is that the FUSE server has ended, both leave t->error 0 and let transfer_recover() decide.
 */
void transfer_fail(struct transfer *t, uint64_t position, int error);
void transfer_stop(struct transfer *t, int ret);

/* Calls the progress function, which may cancel the transfer. */
void transfer_report_progress(struct transfer *t);

#endif
