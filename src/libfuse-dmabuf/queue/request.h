/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests: the parts of extents that are in flight, or soon will be. */
#ifndef FDMABUF_REQUEST_H
#define FDMABUF_REQUEST_H

#include "queue/transfer.h"

/* Pieces of a buffer in one request; enough for 1 MiB in pieces of 4 KiB. */
#define PIECES_MAX 256u

#define NO_HOST UINT32_MAX

/* Bytes that a direct read is to overwrite: see marks.h. */
struct mark {
	uint64_t position;		/* in the file */
	uint64_t offset;		/* in the buffer */
	uint64_t before, value;		/* bytes of the buffer there */
};

/* In the first block of a request, and in any other. */
#define MARKS_MAX 2u

/* What a thread that copies does for a request. */
enum copy_kind {
	COPY_CACHED,			/* from the page cache into the buffer */
	COPY_IN,			/* from bounce memory into the buffer */
	COPY_OUT,			/* from the buffer into bounce memory */
};

/* A copy of the next bytes of a request. */
struct copy {
	enum copy_kind kind;
	uint64_t bytes;
	unsigned char *memory;		/* bounce memory; NULL if there is none in between */
	int64_t result;			/* bytes, or a negative errno of the exporter */
	char *error_text;		/* or NULL */
};

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
	bool is_in_flight;		/* the kernel has the request, or a copier */
	bool is_copying;		/* a copier has it */
	bool is_filled;			/* the bounce memory has what is to be written */
	uint64_t run_end;		/* up to here it is known what the page cache has: */
	bool run_is_cached;
	bool is_vector;			/* the one in flight */
	bool is_plain;			/* the one in flight goes through the page cache */
	unsigned serial;		/* of the token that it was submitted with */
	uint32_t host;			/* number of its part of the bounce memory, or NO_HOST */
	struct sample *sample;		/* that this is the request of, or NULL */
	struct mark marks[MARKS_MAX];
	unsigned mark_count;
	struct iovec one;		/* memory of a request that is no vector */
	struct copy copy;
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

/*
 * Returns where the next command or copy ends at most: what the page cache has moves in another way
 * than the rest.
 */
static inline uint64_t request_run_end(const struct request *request)
{
	return request->position < request->run_end && request->run_end < request->end ?
	       request->run_end : request->end;
}

/* Records that @bytes have moved. */
void request_advance(struct request *request, uint64_t bytes);

/*
 * Records the bytes of a read by a path that goes on at multiples of @unit only (a power of two): a
 * read ends elsewhere at the end of the file.
 */
void request_note_read(struct request *request, uint64_t bytes, uint32_t unit);

/* Records that the file ends at the request's position, and completes the request. */
void request_at_eof(struct request *request);

/*
 * Records that the request made no progress and will be submitted again. After too many tries in a
 * row the transfer fails with @error (a positive errno).
 */
void request_retry(struct request *request, int error);

/*
 * Sets the pieces of memory of the next @length bytes, or as many as @most pieces are for. Those of
 * a dma-buf have offsets, which @base is added to. Returns the number of pieces.
 */
unsigned request_set_pieces(const struct request *request, uint64_t length, uintptr_t base,
			    struct iovec *pieces, unsigned most);

/* A function that works on a part of the buffer: @memory is of the bounce memory, or NULL. */
typedef int part_function(struct fdmabuf_buffer *buffer, uint64_t offset, unsigned char *memory,
			  uint64_t length);

/* Calls @function for each piece of the buffer in the next @length bytes. */
int request_for_pieces(const struct request *request, uint64_t length, unsigned char *memory,
		       part_function *function);

#endif
