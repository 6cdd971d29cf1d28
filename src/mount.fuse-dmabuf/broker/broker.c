/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

#include "broker/broker.h"
#include "broker/token-log.h"
#include "log/log.h"
#include "nodes/inode.h"

static const char no_rights[] = "the policy or the permissions of the file do not allow it";

/* Under the lock of the books. */
static struct policy *policy;

static struct broker_state state_of(uid_t uid)
{
	return (struct broker_state){ books_all(), books_user(uid) };
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
 * 0, or an errno and its reason for the log. The rights to the file are looked up under the lock, so that
 * whoever changes them finds the token in the books, or it is not granted.
 */
static int check(const struct token_request *request, uint32_t *direction, const char **reason)
{
	struct broker_state state = state_of(request->owner.uid);
	uint32_t asked = request->direction & direction_of_open(request->open_flags);

	*reason = "mounted with tokens=deny";
	if (policy->deny)
		return EPERM;
	*reason = "the file is not open for that direction";
	if (!asked)
		return EACCES;
	*reason = no_rights;
	*direction = policy_directions(policy, &request->owner, request->inode, asked);
	if (!*direction)
		return EACCES;
	*reason = policy_limit(policy, &request->owner, request->size, &state.all, &state.user);
	if (!*reason)
		*reason = policy_entries_limit(policy, &request->owner, books_entries(),
					       books_entries_of(request->owner.uid));
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
	error = check(request, direction, &reason);
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

/* NULL: there is none with this id. */
static struct token *take(uint64_t id)
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
	struct token *token = take(end->id);

	if (!token)
		return false;
	token_log_ended(&token->request, end);
	token_free(token);
	return true;
}

void broker_withdraw(uint64_t id)
{
	struct token *token = take(id);

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

/* ---------------------------------------------------------------- when rights end */

static bool has_rights(const struct token *token)
{
	return policy_directions(policy, &token->request.owner, token->request.inode, token->direction) ==
	       token->direction;
}

/* What has been looked at so far counts against the limits, so the newest tokens are those that go. */
static const char *would_be_refused(const struct token *token, void *data)
{
	struct token_count *all = data, *user = &token->user->checked;
	const char *reason;

	if (!has_rights(token))
		return no_rights;
	reason = policy_limit(policy, &token->request.owner, token->request.size, all, user);
	if (!reason) {
		token_count_add(all, token->request.size);
		token_count_add(user, token->request.size);
	}
	return reason;
}

static void forget_checks(void *data)
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
		.begin = forget_checks, .reason = would_be_refused, .data = &all,
		.all = next->deny });
}

static const char *lost_its_rights(const struct token *token, void *inode)
{
	return token->request.inode == inode && !has_rights(token) ? no_rights : NULL;
}

/*
 * Under the lock: a grant that is being decided has perhaps looked at the file before it was changed, and is in
 * the books only when it gives the lock away.
 */
static bool has_tokens(const struct inode *inode)
{
	bool has;

	books_lock();
	has = books_have_file(inode);
	books_unlock();
	return has;
}

void broker_recheck_file(struct inode *inode)
{
	if (has_tokens(inode))
		revoke_tokens(&(struct revocation_selector){ .reason = lost_its_rights, .data = inode });
}

static const char *is_of_removed_file(const struct token *token, void *inode)
{
	return token->request.inode == inode ? "the file was removed" : NULL;
}

void broker_revoke_file(struct inode *inode)
{
	if (has_tokens(inode))
		revoke_tokens(&(struct revocation_selector){
			.reason = is_of_removed_file, .data = inode, .all_of = inode });
}

static const char *is_of_some_removed_file(const struct token *token, void *unused)
{
	struct stat attr;

	(void)unused;
	return !fstat(token->request.inode->fd, &attr) && !attr.st_nlink ? "the file was removed" : NULL;
}

void broker_revoke_removed(void)
{
	revoke_tokens(&(struct revocation_selector){ .reason = is_of_some_removed_file });
}

bool broker_has_tokens(void)
{
	bool has;

	books_lock();
	has = books_entries();
	books_unlock();
	return has;
}
