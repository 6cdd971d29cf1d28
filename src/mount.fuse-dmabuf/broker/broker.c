/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The broker: decides requests for tokens, and says which tokens a lost right ends. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

#include "broker/broker.h"
#include "broker/token-log.h"
#include "log/log.h"
#include "nodes/inode.h"

static const char no_rights_reason[] = "the policy or the permissions of the file do not allow it";

/* Protected by books_lock(). */
static struct policy *policy;

/* Caller holds books_lock(). */
static struct broker_state state_of(uid_t uid)
{
	return (struct broker_state){ books_count_of_all(), books_count_of_user(uid) };
}

static uint32_t direction_of_open(int flags)
{
	switch (flags & O_ACCMODE) {
	case O_RDONLY:
		return FUSE_DMABUF_TOKEN_READ;
	case O_WRONLY:
		return FUSE_DMABUF_TOKEN_WRITE;
	default:
		return TOKEN_BOTH;
	}
}

/*
 * Returns 0 and the granted directions, or an errno and its reason for the log.
 * Caller holds books_lock() until the token is in the books. So a thread that changes the rights to
 * the file and then looks for its tokens either finds this one, or the new rights decide here.
 */
static int check_request(const struct token_request *request, uint32_t *direction,
			 const char **reason)
{
	struct broker_state state = state_of(request->owner.uid);
	uint32_t asked = request->direction & direction_of_open(request->open_flags);

	*reason = "mounted with tokens=deny";
	if (policy->deny)
		return EPERM;
	*reason = "the file is not open for that direction";
	if (!asked)
		return EACCES;
	*reason = no_rights_reason;
	*direction = policy_directions(policy, &request->owner, request->inode, asked);
	if (!*direction)
		return EACCES;
	*reason = policy_limit(policy, &request->owner, request->size, &state.all, &state.user);
	if (!*reason)
		*reason = policy_entries_limit(policy, &request->owner, books_entries(),
					       books_entries_of_user(request->owner.uid));
	if (*reason)
		return EDQUOT;
	*reason = "its id is in use";
	return books_find(request->id) ? EEXIST : 0;
}

void broker_begin(struct policy *first)
{
	policy = first;
}

void broker_end(void)
{
	uint64_t ended = books_entries();
	struct token *token;

	while ((token = books_oldest())) {
		books_remove(token);
		token_free(token);
	}
	if (ended)
		log_info("%" PRIu64 " tokens ended with the mount", ended);
	policy_free(policy);
	policy = NULL;
}

int broker_grant(struct token_request *request, uint32_t *direction)
{
	struct broker_state state;
	const char *reason;
	int error;

	books_lock();
	error = check_request(request, direction, &reason);
	if (!error)
		request->is_logged = token_log_has_room(request);
	if (!error && !books_add(request, *direction)) {
		reason = "out of memory";
		error = ENOMEM;
	}
	state = state_of(request->owner.uid);
	books_unlock();
	if (error) {
		token_log_refused(request, reason);
		owner_free(&request->owner);
	} else {
		token_log_granted(request, *direction, &state);
	}
	return error;
}

void broker_answered(uint64_t id)
{
	struct token *token;

	books_lock();
	token = books_find(id);
	if (token) {
		token->answered = true;
		books_announce();
	}
	books_unlock();
}

/* Removes the token from the books. Returns NULL if there is no token with this id. */
static struct token *remove_token(uint64_t id)
{
	struct token *token;

	books_lock();
	token = books_find(id);
	if (token)
		books_remove(token);
	books_unlock();
	return token;
}

bool broker_release(const struct token_end *end)
{
	struct token *token = remove_token(end->id);

	if (!token)
		return false;
	token_log_ended(&token->request, end);
	token_free(token);
	return true;
}

void broker_withdraw(uint64_t id)
{
	struct token *token = remove_token(id);

	if (!token)
		return;
	token_log_withdrawn(&token->request);
	token_free(token);
}

struct broker_state broker_state(uid_t uid)
{
	struct broker_state state;

	books_lock();
	state = state_of(uid);
	books_unlock();
	return state;
}

const struct policy *broker_policy(void)
{
	return policy;
}

/* ---------------------------------------------------------------- revoking when rights end */

/* Caller holds books_lock(). */
static bool has_rights(const struct token *token)
{
	return policy_directions(policy, &token->request.owner, token->request.inode,
				 token->direction) == token->direction;
}

/*
 * For revocation_selector.reason: why the policy would refuse the token now, or NULL. Only the
 * tokens that the pass has kept count against the limits, so a lowered limit ends the newest ones.
 */
static const char *refusal_reason(const struct token *token, void *data)
{
	struct token_count *all = data, *user = &token->user->checked;
	const char *reason;

	if (!has_rights(token))
		return no_rights_reason;
	reason = policy_limit(policy, &token->request.owner, token->request.size, all, user);
	if (!reason) {
		token_count_add(all, token->request.size);
		token_count_add(user, token->request.size);
	}
	return reason;
}

/* For revocation_selector.begin: a pass begins, which has kept no tokens yet. */
static void reset_checked_counts(void *data)
{
	struct token_count *all = data;

	*all = (struct token_count){ 0 };
	for (struct user *user = books_next_user(NULL); user; user = books_next_user(user))
		user->checked = (struct token_count){ 0 };
}

struct revocation broker_set_policy(struct policy *next)
{
	struct policy *previous = policy;
	struct token_count all;

	books_lock();
	policy = next;
	books_unlock();
	policy_free(previous);
	return revoke_tokens(&(struct revocation_selector){
		.begin = reset_checked_counts, .reason = refusal_reason, .data = &all,
		.all = next->deny });
}

static const char *lost_rights_reason(const struct token *token, void *inode)
{
	return token->request.inode == inode && !has_rights(token) ? no_rights_reason : NULL;
}

/*
 * Takes the lock: a grant that another thread is deciding may have checked the file before the file
 * was changed, and its token is in the books only when that thread releases the lock. Without the
 * lock the token would be missed, and outlive the right.
 */
static bool file_has_tokens(const struct inode *inode)
{
	bool has;

	books_lock();
	has = books_has_tokens_of(inode);
	books_unlock();
	return has;
}

void broker_recheck_file(struct inode *inode)
{
	if (file_has_tokens(inode))
		revoke_tokens(&(struct revocation_selector){
			.reason = lost_rights_reason, .data = inode });
}

static const char *removed_file_reason(const struct token *token, void *inode)
{
	return token->request.inode == inode ? "the file was removed" : NULL;
}

void broker_revoke_file(struct inode *inode)
{
	if (file_has_tokens(inode))
		revoke_tokens(&(struct revocation_selector){
			.reason = removed_file_reason, .data = inode, .all_of_file = inode });
}

static const char *any_removed_file_reason(const struct token *token, void *unused)
{
	struct stat attr;

	(void)unused;
	return !fstat(token->request.inode->fd, &attr) && !attr.st_nlink ?
	       "the file was removed" : NULL;
}

void broker_revoke_removed(void)
{
	revoke_tokens(&(struct revocation_selector){ .reason = any_removed_file_reason });
}

bool broker_has_tokens(void)
{
	bool has;

	books_lock();
	has = books_entries();
	books_unlock();
	return has;
}
