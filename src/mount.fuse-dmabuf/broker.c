/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

#include "broker.h"
#include "inode.h"
#include "log.h"
#include "token-log.h"
#include "token-protocol.h"

/* Ids are consecutive, so the lowest bits spread them evenly; a chain is short up to 10^4 tokens. */
#define TOKEN_BUCKETS 4096u

/* Users with tokens at the same time are few. */
#define USER_BUCKETS 64u

struct user {
	struct user *next;
	uid_t uid;
	struct broker_count count;
};

struct token {
	struct token *next;
	/* Its node is held: the release of the file may be answered before that of the token. */
	struct token_request request;
};

static struct {
	pthread_mutex_t lock;
	struct broker_policy policy;
	struct broker_count all;
	struct token *tokens[TOKEN_BUCKETS];
	struct user *users[USER_BUCKETS];
} broker = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct token **token_slot(uint64_t id)
{
	struct token **slot = &broker.tokens[id % TOKEN_BUCKETS];

	while (*slot && (*slot)->request.id != id)
		slot = &(*slot)->next;
	return slot;
}

static struct user **user_slot(uid_t uid)
{
	struct user **slot = &broker.users[uid % USER_BUCKETS];

	while (*slot && (*slot)->uid != uid)
		slot = &(*slot)->next;
	return slot;
}

static struct user *user_get(uid_t uid)
{
	struct user **slot = user_slot(uid);

	if (!*slot) {
		*slot = calloc(1, sizeof(**slot));
		if (*slot)
			(*slot)->uid = uid;
	}
	return *slot;
}

static void user_put(struct user *user)
{
	if (user->count.tokens)
		return;
	*user_slot(user->uid) = user->next;
	free(user);
}

static void count_add(struct broker_count *count, uint64_t size)
{
	count->tokens++;
	count->bytes += size;
}

static void count_subtract(struct broker_count *count, uint64_t size)
{
	count->tokens--;
	count->bytes -= size;
}

static struct broker_state state_of(uid_t uid)
{
	const struct user *user = *user_slot(uid);

	return (struct broker_state){ broker.all, user ? user->count : (struct broker_count){ 0 } };
}

static uint32_t direction_of_open(int flags)
{
	switch (flags & O_ACCMODE) {
	case O_RDONLY:
		return FUSE_DMABUF_TOKEN_READ;
	case O_WRONLY:
		return FUSE_DMABUF_TOKEN_WRITE;
	default:
		return FUSE_DMABUF_TOKEN_READ | FUSE_DMABUF_TOKEN_WRITE;
	}
}

/* The policy: whoever has the file open for a direction may have a token for it. */
static int check(const struct token_request *request, uint32_t *direction)
{
	*direction = request->direction & direction_of_open(request->open_flags);
	if (broker.policy.deny)
		return EPERM;
	if (!*direction)
		return EACCES;
	if (request->size > broker.policy.max_bytes - broker.all.bytes)
		return EDQUOT;
	if (*token_slot(request->id))
		return EEXIST;
	return 0;
}

static int add_token(const struct token_request *request)
{
	struct token *token = malloc(sizeof(*token));
	struct user *user = token ? user_get(request->uid) : NULL;

	if (!user) {
		free(token);
		return ENOMEM;
	}
	*token = (struct token){ .request = *request };
	inode_hold(request->inode);
	*token_slot(request->id) = token;
	count_add(&broker.all, request->size);
	count_add(&user->count, request->size);
	return 0;
}

/* Takes it out of the books. NULL: no such token. */
static struct token *take_token(uint64_t id)
{
	struct token **slot, *token;
	struct user *user;

	pthread_mutex_lock(&broker.lock);
	slot = token_slot(id);
	token = *slot;
	if (token) {
		*slot = token->next;
		user = *user_slot(token->request.uid);
		count_subtract(&broker.all, token->request.size);
		count_subtract(&user->count, token->request.size);
		user_put(user);
	}
	pthread_mutex_unlock(&broker.lock);
	return token;
}

static void free_token(struct token *token)
{
	inode_forget(token->request.inode, 1);
	free(token);
}

void broker_begin(const struct broker_policy *policy)
{
	broker.policy = *policy;
}

int broker_grant(const struct token_request *request, uint32_t *direction)
{
	struct broker_state state;
	int error;

	pthread_mutex_lock(&broker.lock);
	error = check(request, direction);
	if (!error)
		error = add_token(request);
	state = state_of(request->uid);
	pthread_mutex_unlock(&broker.lock);
	if (error)
		token_log_refused(request, error);
	else
		token_log_granted(request, *direction, &state);
	return error;
}

bool broker_release(const struct token_end *end)
{
	struct token *token = take_token(end->id);

	if (!token)
		return false;
	token_log_ended(&token->request, end);
	free_token(token);
	return true;
}

void broker_withdraw(uint64_t id)
{
	struct token *token = take_token(id);

	if (!token)
		return;
	token_log_withdrawn(&token->request);
	free_token(token);
}

void broker_end(void)
{
	uint64_t ended = 0;

	for (size_t i = 0; i < TOKEN_BUCKETS; i++) {
		while (broker.tokens[i]) {
			free_token(take_token(broker.tokens[i]->request.id));
			ended++;
		}
	}
	if (ended)
		log_info("%" PRIu64 " tokens ended with the mount", ended);
}

struct broker_state broker_state(uid_t uid)
{
	struct broker_state state;

	pthread_mutex_lock(&broker.lock);
	state = state_of(uid);
	pthread_mutex_unlock(&broker.lock);
	return state;
}
