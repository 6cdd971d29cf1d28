/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The books as they were at one moment, for whoever looks at them longer than others may wait for the lock. */
#ifndef BOOKS_COPY_H
#define BOOKS_COPY_H

#include "books.h"

struct books_copy {
	struct token_count all;
	struct user *users;
	size_t user_count;
	struct token *tokens;   /* the oldest first; without groups */
	size_t token_count;
};

/* Under the lock. The nodes of the tokens are kept until books_copy_free(). False: out of memory. */
bool books_copy_make(struct books_copy *copy);

/* Without it. */
void books_copy_free(struct books_copy *copy);

#endif
