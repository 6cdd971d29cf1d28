/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel knows of a grant from the moment at which it has taken the answer. What it is asked after that
 * moment finds the token, or the token has ended: so no token is asked for before its answer was taken, and
 * what the kernel finds need not be looked at.
 */
#include <stdlib.h>

#include "broker/kernel-tokens.h"
#include "broker/revocation.h"
#include "broker/token-log.h"
#include "nodes/inode.h"

struct candidate {
	uint64_t id;
	const char *reason;
};

struct candidates {
	struct candidate *list;
	size_t count, capacity;
};

/* With claim only those that nobody has to be waited for, and they are this revoker's. */
static void collect(const struct revocation_selector *selector, struct candidates *candidates, bool claim)
{
	struct books_walk walk;
	struct token *token;
	const char *reason;

	candidates->count = 0;
	books_lock();
	if (selector->begin)
		selector->begin(selector->data);
	books_walk_begin(&walk);
	while (candidates->count < candidates->capacity && (token = books_walk_next(&walk))) {
		if (token->revoked || (claim && (token->revoking || !token->answered)))
			continue;
		reason = selector->reason(token, selector->data);
		if (!reason)
			continue;
		token->revoking |= claim;
		candidates->list[candidates->count++] = (struct candidate){ token->request.id, reason };
	}
	books_walk_end(&walk);
	books_unlock();
}

/* False: it has ended, or somebody else has revoked it. */
static bool claim(uint64_t id)
{
	struct token *token;
	bool claimed;

	books_lock();
	while ((token = books_find(id)) && (token->revoking || !token->answered))
		books_wait();
	claimed = token && !token->revoked;
	if (claimed)
		token->revoking = true;
	books_unlock();
	return claimed;
}

/* A copy of its request for the log, which may have to wait, without the lock. False: it has ended. */
static bool set_result(uint64_t id, int error, struct token_request *request)
{
	struct token *token;

	books_lock();
	token = books_find(id);
	if (token) {
		*request = token->request;
		inode_keep(request->inode);
		token->revoking = false;
		if (!error)
			books_set_revoked(token);
		books_announce();
	}
	books_unlock();
	return token;
}

static void settle(const struct candidate *candidate, int error, struct revocation *result)
{
	struct token_request request;

	if (error) {
		result->failed++;
		result->error = error;
	} else {
		result->revoked++;
	}
	if (!set_result(candidate->id, error, &request))
		return;
	if (error)
		token_log_not_revoked(&request, candidate->reason, error);
	else
		token_log_revoked(&request, candidate->reason);
	inode_let_go(request.inode);
}

static int end_at_once(const struct revocation_selector *selector)
{
	return selector->all ? kernel_tokens_revoke_all() : kernel_tokens_revoke_node(selector->all_of->nodeid);
}

static void revoke_at_once(const struct revocation_selector *selector, struct candidates *candidates,
			   struct revocation *result)
{
	int error;

	collect(selector, candidates, true);
	error = candidates->count ? end_at_once(selector) : 0;
	for (size_t i = 0; i < candidates->count; i++)
		settle(&candidates->list[i], error, result);
}

static void revoke_one_by_one(const struct revocation_selector *selector, struct candidates *candidates,
			      struct revocation *result)
{
	collect(selector, candidates, false);
	for (size_t i = 0; i < candidates->count; i++) {
		if (claim(candidates->list[i].id))
			settle(&candidates->list[i], kernel_token_revoke(candidates->list[i].id), result);
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

struct revocation revoke_tokens(const struct revocation_selector *selector)
{
	struct candidate one;
	struct candidates candidates = { .capacity = number_of_tokens() + 1 };
	struct candidate *many = malloc(candidates.capacity * sizeof(*many));
	struct revocation result = { 0 };
	uint64_t before;

	candidates.list = many ? many : &one;
	if (!many)
		candidates.capacity = 1;
	if (selector->all || selector->all_of)
		revoke_at_once(selector, &candidates, &result);
	if (!result.failed) {
		/* Those that others are at, and those that came meanwhile. */
		do {
			before = result.revoked;
			revoke_one_by_one(selector, &candidates, &result);
		} while (candidates.count == candidates.capacity && result.revoked > before);
	}
	free(many);
	return result;
}
