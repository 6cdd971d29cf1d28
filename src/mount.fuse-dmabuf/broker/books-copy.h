/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copies of parts of the books, for a reader that takes longer than other threads may wait for the
 * lock of the books.
 */
#ifndef BOOKS_COPY_H
#define BOOKS_COPY_H

#include "broker/books.h"

struct users_copy {
	struct user_copy {
		uid_t uid;
		struct token_count count;
	} *all;
	size_t count;
};

/*
 * Copies all users, for users_copy_free(). Returns false if out of memory.
 * Caller holds books_lock().
 */
bool users_copy_make(struct users_copy *copy);

/* Caller needs no lock. */
void users_copy_free(struct users_copy *copy);

/* Tokens in one copy, which are copied while the lock is held: as many as WALK_BATCH in books.c. */
#define TOKENS_COPY_MAX 64u

struct tokens_copy {
	struct token tokens[TOKENS_COPY_MAX];   /* without groups */
	size_t count;
};

/*
 * Copies the next tokens of a walk, and keeps their nodes until tokens_copy_free(). Returns false
 * after the last token; then there is nothing to free. Takes the lock of the books itself: the
 * caller does not hold it.
 */
bool tokens_copy_next(struct tokens_copy *copy, struct books_walk *walk);

/* Lets go of the nodes. Caller does not hold books_lock(). */
void tokens_copy_free(struct tokens_copy *copy);

#endif
