/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Revocation: selects tokens in the books, and makes the kernel revoke them.
 *
 * The kernel knows a token from the moment when it takes the answer to the grant. Asked to revoke
 * the token after that moment, the kernel finds the token, or the token has ended. So the broker
 * does not ask for a token before its answer was taken, and need not check how many tokens the
 * kernel has found.
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

/*
 * Collects the selected tokens, as many as the list has room for. With @claim leaves out tokens for
 * which this thread would have to wait, because the kernel has not taken the answer or another
 * thread is revoking them; marks the others as revoking, so that only this thread revokes them.
 */
static void collect(const struct revocation_selector *selector, struct candidates *candidates,
		    bool claim)
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
		candidates->list[candidates->count++] = (struct candidate){
			token->request.id, reason };
	}
	books_walk_end(&walk);
	books_unlock();
}

/*
 * Waits until the kernel has the answer and no other thread is revoking the token, and marks the
 * token as revoking. Returns false if the token has ended, or another thread has revoked it.
 */
static bool claim_token(uint64_t id)
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

/*
 * Ends the claim, and marks the token as revoked if @error is 0. Copies the request and keeps its
 * node, for the log: the log may block, so it is written without the lock. Returns false if the
 * token has ended.
 */
static bool end_claim(uint64_t id, int error, struct token_request *request)
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

/* Counts and logs the result of the kernel, a positive errno or 0, for one claimed token. */
static void record_result(const struct candidate *candidate, int error, struct revocation *result)
{
	struct token_request request;

	if (error) {
		result->failed++;
		result->error = error;
	} else {
		result->revoked++;
	}
	if (!end_claim(candidate->id, error, &request))
		return;
	if (error)
		token_log_not_revoked(&request, candidate->reason, error);
	else
		token_log_revoked(&request, candidate->reason);
	inode_let_go(request.inode);
}

static int revoke_in_kernel(const struct revocation_selector *selector)
{
	if (selector->all)
		return kernel_tokens_revoke_all();
	return kernel_tokens_revoke_node(selector->all_of_file->nodeid);
}

/* Revokes with one call the tokens for which this thread need not wait. */
static void revoke_in_one_call(const struct revocation_selector *selector,
			       struct candidates *candidates, struct revocation *result)
{
	int error;

	collect(selector, candidates, true);
	error = candidates->count ? revoke_in_kernel(selector) : 0;
	for (size_t i = 0; i < candidates->count; i++)
		record_result(&candidates->list[i], error, result);
}

/* Revokes tokens with one call for each, and waits for those that other threads are revoking. */
static void revoke_one_by_one(const struct revocation_selector *selector,
			      struct candidates *candidates, struct revocation *result)
{
	collect(selector, candidates, false);
	for (size_t i = 0; i < candidates->count; i++) {
		if (claim_token(candidates->list[i].id))
			record_result(&candidates->list[i],
				      kernel_token_revoke(candidates->list[i].id), result);
	}
}

static size_t count_tokens(void)
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
	struct candidates candidates = { .capacity = count_tokens() + 1 };
	struct candidate *many = malloc(candidates.capacity * sizeof(*many));
	struct revocation result = { 0 };
	uint64_t before;

	/* Without memory for a list the tokens are revoked in passes of one. */
	candidates.list = many ? many : &one;
	if (!many)
		candidates.capacity = 1;
	if (selector->all || selector->all_of_file)
		revoke_in_one_call(selector, &candidates, &result);
	if (!result.failed) {
		/* Tokens that other threads are revoking, and tokens granted meanwhile. */
		do {
			before = result.revoked;
			revoke_one_by_one(selector, &candidates, &result);
		} while (candidates.count == candidates.capacity && result.revoked > before);
	}
	free(many);
	return result;
}
