/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parts of the books as they were at one moment, for whoever looks at them longer than others may wait for the lock. */
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

/* Under the lock. False: out of memory. */
bool users_copy_make(struct users_copy *copy);

/* Without it. */
void users_copy_free(struct users_copy *copy);

#define TOKENS_COPY_MAX 64u

struct tokens_copy {
	struct token tokens[TOKENS_COPY_MAX];   /* without groups */
	size_t count;
};

/*
 * The next ones of a walk; takes the lock for it. Their nodes are kept until tokens_copy_free(), which is without it,
 * too. False: there are no more, and nothing is to be freed.
 */
bool tokens_copy_next(struct tokens_copy *copy, struct books_walk *walk);
void tokens_copy_free(struct tokens_copy *copy);

#endif
