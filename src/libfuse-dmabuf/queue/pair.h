/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pairs: a file and a buffer that have met in a queue, and their token. */
#ifndef FDMABUF_PAIR_H
#define FDMABUF_PAIR_H

#include "base/object.h"
#include "buffer/buffer.h"
#include "file/file.h"
#include "queue/evidence.h"
#include "ring/ring.h"

#define REASON_TEXT_SIZE 256	/* bytes, with the NUL */

struct pair {
	struct pair_table *table;	/* NULL in a child, after pair_table_forget() */
	struct pair *next, **link;	/* in table->pairs */
	struct fdmabuf_file *file;
	struct fdmabuf_buffer *buffer;
	/*
	 * A pair that no transfer uses holds neither file nor buffer: the pair ends with either, in
	 * any thread. A pair that transfers use belongs to the thread of the queue.
	 */
	struct watch file_watch, buffer_watch;
	unsigned users;			/* transfers; changes under the lock of all objects */

	struct fd_handle *handle;	/* changes only while no request is in flight */
	unsigned slot;			/* of the token in the ring; 0 = no token */
	unsigned serial;		/* number of the token among those of this pair */
	unsigned in_flight;		/* requests */
	uint64_t last_use;		/* table->clock at the last request */

	bool is_bounce;			/* for good: see reason */
	bool bounce_is_plain;		/* bounce requests use plain_fd */
	bool refuses_direct_io;		/* of the file to the pages of the buffer */
	bool is_denied[2];		/* the token does not allow this direction */
	struct evidence *evidence[2];	/* for each direction; NULL without memory */
	unsigned proven_blocks[2];	/* as in the evidence, but of this pair alone */
	/* Whether direct requests can be looked after: for each direction */
	enum { LOOK_UNKNOWN, LOOK_POSSIBLE, LOOK_IMPOSSIBLE } look[2];
	uint64_t until_look;		/* bytes that are read until marks are due */
	bool token_has_ended;		/* a request failed with ESTALE */
	bool is_lost;			/* the FUSE server has ended */
	int64_t next_look;		/* for the new mount; monotonic ms */
	enum fdmabuf_reason reason;
	char reason_text[REASON_TEXT_SIZE];
};

struct pair_table {
	struct ring *ring;
	unsigned forks;			/* fork_count() of the process whose tokens these are */
	int no_ring_reason;		/* a positive errno, or 0 if there is an io_uring */
	bool has_tokens;		/* the kernel has them */
	enum fdmabuf_path wanted_path;
	unsigned tokens_max;
	uint64_t clock;			/* counts uses, to find the least recent one */
	uint64_t registrations;
	/* Protected by the lock of all objects, because other threads end idle pairs. */
	struct pair *pairs;		/* the newest is the first */
	unsigned pair_count, token_count;
	unsigned *free_slots, free_count;	/* an array of tokens_max */
	unsigned ending_count;		/* pairs that other threads are about to end */
	pthread_cond_t some_ended;
};

/* Returns 0 or a negative errno. */
int pair_table_init(struct pair_table *table, struct ring *ring, unsigned tokens);
/* Frees all pairs. No transfer uses one; the ring, which is closed afterwards, ends the tokens. */
void pair_table_destroy(struct pair_table *table);
/* Frees the copies that a child has: the tokens stay the parent's. */
void pair_table_forget(struct pair_table *table);
/* Returns the number of tokens that the queue has. */
unsigned pair_table_count_tokens(const struct pair_table *table);

/* Finds or makes the pair, for a transfer. Returns NULL without memory. */
struct pair *pair_get(struct pair_table *table, struct fdmabuf_file *file,
		      struct fdmabuf_buffer *buffer);
void pair_put(struct pair *pair);

/*
 * Makes the pair use the file on its new mount, where it needs a new token. Takes over the
 * reference.
 */
void pair_set_handle(struct pair *pair, struct fd_handle *handle);

/*
 * Makes the token unless the pair has it. Returns -EBUSY if that has to wait until a request of
 * another pair has completed. Returns another negative errno, with which FDMABUF_DIRECT fails, if a
 * token is impossible or refused, and then sets the reason.
 */
int pair_need_token(struct pair *pair);

/* Returns true if the pair has a token, or would get one without ending another pair's. */
bool pair_has_room(const struct pair *pair);

/* Forgets a token that has ended, so that the next pair_need_token() makes a new one. */
void pair_forget_token(struct pair *pair);

/*
 * Returns true if what cannot be direct for lack of a token goes by direct I/O to the pages of the
 * buffer.
 */
bool pair_has_direct_io(const struct pair *pair);

/* Ends the token, and uses bounce from now on. The reason is set. */
void pair_switch_to_bounce(struct pair *pair);

/*
 * Sets the text for a token that does not allow this direction, because it was made for the other
 * one only. Returns -EACCES.
 */
int fail_denied(const struct pair *pair, enum fdmabuf_direction direction);

/* Returns true if direct requests of the pair have moved other bytes. */
static inline bool pair_is_disproved(const struct pair *pair, enum fdmabuf_direction direction)
{
	return evidence_is_disproved(pair->evidence[direction]);
}

/* Returns true if the direct path is used, unless that turns out to be impossible. */
static inline bool pair_is_direct(const struct pair *pair, enum fdmabuf_direction direction)
{
	return !pair->is_bounce && !pair->is_denied[direction] &&
	       !pair_is_disproved(pair, direction);
}

void pair_set_reason(struct pair *pair, enum fdmabuf_reason reason, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
