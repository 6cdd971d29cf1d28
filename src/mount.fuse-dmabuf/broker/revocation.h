/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Taking tokens back. */
#ifndef REVOCATION_H
#define REVOCATION_H

#include "broker/books.h"

struct revocation_selector {
	/* Called before a pass over the books; may be NULL. */
	void (*begin)(void *data);

	/* For each live token, from the oldest to the newest: why it is to go, or NULL. */
	const char *(*reason)(const struct token *token, void *data);

	/* Set when reason() is against all tokens, or all of a file: the kernel then ends them at one go. */
	bool all;
	const struct inode *all_of;

	void *data;
};

/* How many were ended, how many could not be, and why (an errno). */
struct revocation {
	uint64_t revoked, failed;
	int error;
};

/* When this returns, no DMA of these tokens is in flight, whoever revoked them. */
struct revocation revoke_tokens(const struct revocation_selector *selector);

#endif
