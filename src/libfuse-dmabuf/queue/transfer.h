/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Transfers: what one operation has to move, and how far it is. */
#ifndef FDMABUF_TRANSFER_H
#define FDMABUF_TRANSFER_H

#include "base/error.h"
#include "queue/pair.h"

/* What a transfer has to do with one pair. */
struct use {
	struct pair *pair;
	const struct fd_handle *handle;	/* the pair's, when the transfer last looked */
	struct file_version version;	/* of the file, when the transfer began */
	bool has_version;
	uint64_t eof;			/* lowest offset at which a read found the file's end */
	bool has_asked_for_token;	/* the broker was asked for a new token */
	bool was_reopened;
	bool has_moved_directly;
	bool is_covered;		/* by a proof, or cannot be */
	bool was_refused;		/* a direct request, which was copied instead */
	bool has_access;		/* see access_need() */
	unsigned mount_waits;		/* number of times that the mount was waited for */
	int64_t deadline;		/* monotonic ms, while the mount is waited for; else 0 */
	uint32_t block_size;		/* of the file */
	uint64_t buffer_size;
	/* The pair's, when the transfer finished. */
	bool is_bounce, has_direct_io;
	enum fdmabuf_reason reason;
	enum fdmabuf_proven proven;
	char *reason_text;		/* or NULL */
};

/*
 * How a part of the file moves. Blocks that are written in part go through the page cache, after
 * all others, because a direct write beside them in the same page would compete with the page
 * cache.
 */
enum part_kind {
	PART_DIRECT, PART_DIRECT_IO, PART_BOUNCE, PART_PLAIN, PART_SYNC,
	PART_SAMPLE, PART_SAMPLE_HOST,	/* of a proof: direct, and to or from host memory */
};

struct request;

/* A piece of the buffer, up to the next piece of the extent or to its end. */
struct piece {
	uint64_t from;			/* offset in the file */
	uint64_t buffer_offset;
};

/* A contiguous part of a file that moves in one way. */
struct extent {
	struct use *use;
	enum part_kind kind;
	uint64_t from, to;		/* offsets in the file */
	size_t first_piece, piece_count;
	size_t first_range, last_range;	/* in the transfer's order */
};

/*
 * What is to be done with a sample next. A read is first read into host memory, then directly, and
 * compared. A write is first written directly, then read back into host memory, and compared; if
 * the file has other bytes than the buffer, those of the buffer are written from host memory.
 */
enum sample_step { SAMPLE_FIRST, SAMPLE_SECOND, SAMPLE_HEAL, SAMPLE_DONE };

struct sample {
	struct extent extent;		/* one block, in one piece of the buffer */
	unsigned char *host;		/* what the file has; NULL before the first request */
	unsigned char *other;		/* what the buffer has; in the same memory */
	size_t length;			/* bytes that the file has of the block */
	enum sample_step step;
	bool has_request;
	bool is_right;			/* the bytes were the same, and not all zero */
	unsigned tries;
};

#define SHARED_FIRST 1u
#define SHARED_LAST 2u

enum phase { PHASE_PROOF, PHASE_BLOCKS, PHASE_PLAIN, PHASE_SYNC, PHASE_DONE };

struct fdmabuf_transfer {
	/* NULL after the queue was closed, or has given the finished transfer back */
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *next, **link;	/* in the queue's active or finished transfers */
	enum fdmabuf_direction direction;
	unsigned flags;
	fdmabuf_progress_function *progress;
	void *data;

	struct fdmabuf_range *ranges;	/* lengths are cut to the file, as it was at the start */
	uint64_t *done;			/* for each range; right after the transfer has finished */
	uint32_t *use_of;		/* for each range, the number of its use */
	size_t count;
	size_t *order;			/* by file, buffer and offset; NULL = as given */
	/*
	 * For each range, SHARED_FIRST and SHARED_LAST: with FDMABUF_WHOLE_BLOCKS, the block of the
	 * buffer also has bytes of a range from elsewhere, so it is not read whole. NULL = none.
	 */
	unsigned char *shared;

	struct use *uses;
	size_t use_count;
	struct extent *extents;
	size_t extent_count;
	struct piece *pieces;
	struct sample *samples;		/* NULL if there are none */
	size_t sample_count;

	enum phase phase;
	size_t extent;			/* the one that is being cut into requests, */
	uint64_t cursor;		/* from here on */
	size_t piece;			/* the one with the cursor */
	uint64_t moved, total;		/* bytes, for the progress function */
	unsigned requests, in_flight;	/* requests that exist, and those that the kernel has */
	struct request *parked;		/* a list on the heap: see request_park() */
	bool is_active;			/* until it has finished */
	bool is_cancelled;
	bool is_last_report_due;	/* the progress function was not told of the end */
	int error;			/* 0, or the negative errno that ends the transfer */
	char error_text[ERROR_TEXT_SIZE];
};

static inline size_t range_index(const struct fdmabuf_transfer *t, size_t place)
{
	return t->order ? t->order[place] : place;
}

static inline struct fdmabuf_range *range_at(const struct fdmabuf_transfer *t, size_t place)
{
	return &t->ranges[range_index(t, place)];
}

static inline bool is_same_pair(const struct fdmabuf_range *a, const struct fdmabuf_range *b)
{
	return a->file == b->file && a->buffer == b->buffer;
}

/* Returns the offset in the file at which a piece ends. */
static inline uint64_t piece_end(const struct fdmabuf_transfer *t, const struct extent *extent,
				 size_t piece)
{
	return piece + 1 < extent->first_piece + extent->piece_count ? t->pieces[piece + 1].from :
								       extent->to;
}

/* Returns the place in the buffer of what piece @piece has at @position of the file. */
static inline uint64_t piece_offset(const struct fdmabuf_transfer *t, size_t piece,
				    uint64_t position)
{
	return position - t->pieces[piece].from + t->pieces[piece].buffer_offset;
}

/*
 * Ends the transfer with @ret (a negative errno) of a function that has set the text; only the
 * first error counts.
 */
void transfer_stop(struct fdmabuf_transfer *t, int ret);

/*
 * Ends the transfer with @error (a positive errno) of a request at @position of the use's file. If
 * the cause is that the FUSE server has ended, the pair is lost instead, and the transfer goes on.
 */
void transfer_fail(struct fdmabuf_transfer *t, struct use *use, uint64_t position, int error);

/* Records that the bytes from @from to @to of the extent have not moved. */
void transfer_note_missing(struct fdmabuf_transfer *t, const struct extent *extent, uint64_t from,
			   uint64_t to);

/* Records that nothing of the use's ranges can be relied on. */
void transfer_note_nothing(struct fdmabuf_transfer *t, const struct use *use);

/* Keeps what results tell of the pairs, which may change or end, and lets them go. */
void transfer_let_pairs_go(struct fdmabuf_transfer *t);

/* Frees the transfer's memory. It has finished, or was never active. */
void transfer_release(struct fdmabuf_transfer *t);

#endif
