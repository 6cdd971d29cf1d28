/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Revokes tokens, and waits until their DMA has ended. */
#ifndef REVOCATION_H
#define REVOCATION_H

#include "broker/books.h"

/* Which tokens to revoke. The functions are called with books_lock() held. */
struct revocation_selector {
	/* Called before each pass over the books; may be NULL. */
	void (*begin)(void *data);

	/*
	 * Called for each token that is not revoked, from the oldest to the newest. Returns why the
	 * token is to be revoked, or NULL.
	 */
	const char *(*reason)(const struct token *token, void *data);

	/*
	 * Set one of these if reason() has a reason for every token, or for every token of a file:
	 * then one call makes the kernel revoke them all.
	 */
	bool all;
	const struct inode *all_of_file;

	void *data;
};

/* How many tokens were revoked, how many could not be, and why (an errno). */
struct revocation {
	uint64_t revoked, failed;
	int error;
};

/*
 * Revokes the selected tokens. When this function returns, no DMA of these tokens is in flight,
 * also of those that another thread revokes; only the failed ones may go on.
 * Caller does not hold books_lock().
 */
struct revocation revoke_tokens(const struct revocation_selector *selector);

#endif
