/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernel-tokens.h"
#include "revocation.h"
#include "token-log.h"

/*
 * A token that was just granted is not live before the kernel has taken the answer. So one that is in the
 * books but not in the kernel is asked for again, every 10 ms; a second is more than any registration takes.
 */
#define ATTEMPTS 100u
#define ATTEMPT_MICROSECONDS 10000

struct candidate {
	uint64_t id;
	const char *reason;
};

/* The number of those that are to go, up to the capacity. */
static size_t collect(const struct revocation_wish *wish, struct candidate *candidates, size_t capacity)
{
	const char *reason;
	size_t count = 0;

	books_lock();
	if (wish->begin)
		wish->begin(wish->data);
	for (const struct token *token = books_oldest(); token && count < capacity; token = token->newer) {
		reason = token->revoked ? NULL : wish->reason(token, wish->data);
		if (reason)
			candidates[count++] = (struct candidate){ token->request.id, reason };
	}
	books_unlock();
	return count;
}

/* False: it has ended, or somebody else has revoked it. */
static bool claim(uint64_t id)
{
	struct token *token;
	bool claimed;

	books_lock();
	while ((token = books_find(id)) && token->revoking)
		books_wait();
	claimed = token && !token->revoked;
	if (claimed)
		token->revoking = true;
	books_unlock();
	return claimed;
}

static bool is_in_books(uint64_t id)
{
	bool found;

	books_lock();
	found = books_find(id);
	books_unlock();
	return found;
}

/* 0: no DMA is in flight. */
static int end_in_kernel(uint64_t id, unsigned int *attempts)
{
	bool ended = false;
	int error;

	while (!(error = kernel_token_revoke(id, &ended)) && !ended && is_in_books(id)) {
		if (!*attempts)
			return ESRCH;
		--*attempts;
		usleep(ATTEMPT_MICROSECONDS);
	}
	return error;
}

static void settle(const struct candidate *candidate, int error)
{
	struct token *token;

	books_lock();
	token = books_find(candidate->id);
	if (token) {
		token->revoking = false;
		if (error) {
			token_log_not_revoked(&token->request, candidate->reason, error);
		} else {
			token_log_revoked(&token->request, candidate->reason);
			books_set_revoked(token);
		}
		books_announce();
	}
	books_unlock();
}

static void revoke_one(const struct candidate *candidate, struct revocation *result, unsigned int *attempts)
{
	int error;

	if (!claim(candidate->id))
		return;
	error = end_in_kernel(candidate->id, attempts);
	settle(candidate, error);
	if (error) {
		result->failed++;
		result->error = error;
	} else {
		result->revoked++;
	}
}

static size_t number_of_tokens(void)
{
	size_t number;

	books_lock();
	number = books_entries();
	books_unlock();
	return number;
}

struct revocation revoke_tokens(const struct revocation_wish *wish)
{
	size_t capacity = number_of_tokens() + 1, count;
	struct candidate one, *many = malloc(capacity * sizeof(*many));
	struct candidate *candidates = many ? many : &one;
	struct revocation result = { 0 };
	unsigned int attempts = ATTEMPTS;
	uint64_t before;

	if (!many)
		capacity = 1;
	do {
		before = result.revoked;
		count = collect(wish, candidates, capacity);
		for (size_t i = 0; i < count; i++)
			revoke_one(&candidates[i], &result, &attempts);
	} while (count == capacity && result.revoked > before);
	free(many);
	return result;
}
