/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests: the parts of extents that are in flight, or soon will be. */
#ifndef FDMABUF_REQUEST_H
#define FDMABUF_REQUEST_H

#include "queue/transfer.h"

/* Pieces of a buffer in one request; enough for 1 MiB in pieces of 4 KiB. */
#define PIECES_MAX 256u

#define NO_HOST UINT32_MAX

struct mark {
	uint64_t position;		/* in the file */
	uint64_t offset;		/* in the buffer */
	uint64_t before, value;		/* bytes of the buffer there */
};

/* At the first block of a request, at the last one, and at one between. */
#define MARKS_MAX 3u

struct request {
	struct request *next;		/* in a list */
	struct fdmabuf_transfer *transfer;
	struct extent *extent;
	enum part_kind kind;		/* the extent's, unless the path has changed it */
	uint64_t position, end;		/* the part still to be moved, as offsets in the file */
	size_t piece;			/* the one with the position */
	unsigned tries;			/* in a row without progress */
	int64_t not_before;		/* monotonic ms at which the next try is due, or 0 */
	bool was_submitted;		/* at least once */
	bool is_in_flight;
	bool is_vector;			/* the one in flight */
	bool is_plain;			/* the one in flight goes through the page cache */
	unsigned serial;		/* of the token that it was submitted with */
	uint32_t host;			/* number of its part of the bounce memory, or NO_HOST */
	struct sample *sample;		/* that this is the request of, or NULL */
	struct mark marks[MARKS_MAX];
	unsigned mark_count;
	struct iovec one;		/* memory of a request that is no vector */
};

struct request_list {
	struct request *first, **end;
};

void request_list_init(struct request_list *list);
void request_list_append(struct request_list *list, struct request *request);
struct request *request_list_take(struct request_list *list);

/*
 * Moves a request that waits for a token or a mount out of the queue's array, where others can use
 * its place. Returns false without memory. request_unpark() takes one whose use has recovered, or
 * returns NULL if there is none; the caller frees it.
 */
bool request_park(const struct request *request);
struct request *request_unpark(struct fdmabuf_transfer *t);

/* Records that @bytes have moved. */
void request_advance(struct request *request, uint64_t bytes);

/* Records that the file ends at the request's position, and completes the request. */
void request_at_eof(struct request *request);

/*
 * Records that the request made no progress and will be submitted again. After too many tries in a
 * row the transfer fails with @error (a positive errno).
 */
void request_retry(struct request *request, int error);

/* A function that works on a part of the buffer: @memory is of the bounce memory, or NULL. */
typedef int part_function(struct fdmabuf_buffer *buffer, uint64_t offset, unsigned char *memory,
			  uint64_t length);

/* Calls @function for each piece of the buffer in the next @length bytes. */
int request_for_pieces(const struct request *request, uint64_t length, unsigned char *memory,
		       part_function *function);

#endif
