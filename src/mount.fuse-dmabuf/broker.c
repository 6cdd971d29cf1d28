/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "broker.h"
#include "inode.h"
#include "log.h"
#include "token_protocol.h"

/* Ids are consecutive, so the lowest bits spread them evenly; a chain is short up to 10^4 tokens. */
#define TOKEN_BUCKETS 4096u

/* Users with tokens at the same time are few. */
#define USER_BUCKETS 64u

#define EXPORTER_MAX 33

struct user {
	struct user *next;
	uid_t uid;
	struct broker_count count;
};

struct token {
	struct token *next;
	uint64_t id;
	struct inode *inode;    /* held: the file's release may be answered before the token's */
	uint64_t size;
	uid_t uid;
	pid_t pid;
	char exporter[EXPORTER_MAX];
};

static struct {
	pthread_mutex_t lock;
	struct broker_policy policy;
	struct broker_count total;
	struct token *tokens[TOKEN_BUCKETS];
	struct user *users[USER_BUCKETS];
} broker = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct token **token_slot(uint64_t id)
{
	struct token **slot = &broker.tokens[id % TOKEN_BUCKETS];

	while (*slot && (*slot)->id != id)
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
	struct user **slot = user_slot(user->uid);

	if (user->count.tokens)
		return;
	*slot = user->next;
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
	if (request->size > broker.policy.max_bytes - broker.total.bytes)
		return EDQUOT;
	if (*token_slot(request->id))
		return EEXIST;
	return 0;
}

static int add_token(const struct token_request *request)
{
	struct token *token = calloc(1, sizeof(*token));
	struct user *user = token ? user_get(request->uid) : NULL;

	if (!user) {
		free(token);
		return ENOMEM;
	}
	token->id = request->id;
	token->inode = request->inode;
	token->size = request->size;
	token->uid = request->uid;
	token->pid = request->pid;
	strncpy(token->exporter, request->exporter, sizeof(token->exporter) - 1);
	inode_hold(token->inode);
	*token_slot(token->id) = token;
	count_add(&broker.total, token->size);
	count_add(&user->count, token->size);
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
		user = *user_slot(token->uid);
		count_subtract(&broker.total, token->size);
		count_subtract(&user->count, token->size);
		user_put(user);
	}
	pthread_mutex_unlock(&broker.lock);
	return token;
}

static void free_token(struct token *token)
{
	inode_forget(token->inode, 1);
	free(token);
}

static const char *direction_name(uint32_t direction)
{
	switch (direction) {
	case FUSE_DMABUF_TOKEN_READ:
		return "read";
	case FUSE_DMABUF_TOKEN_WRITE:
		return "write";
	default:
		return "read and write";
	}
}

static const char *reason_name(uint32_t reason)
{
	switch (reason) {
	case FUSE_DMABUF_RELEASE_CLOSED:
		return "closed";
	case FUSE_DMABUF_RELEASE_REVOKED:
		return "revoked";
	case FUSE_DMABUF_RELEASE_FAILED:
		return "not used (the registration failed)";
	default:
		return "ended for an unknown reason";
	}
}

static const char *refusal_name(int error)
{
	switch (error) {
	case EPERM:
		return "mounted with tokens=deny";
	case EACCES:
		return "the file is not open for that direction";
	case EDQUOT:
		return "max_bytes would be passed";
	default:
		return strerror(error);
	}
}

static void log_grant(const struct token_request *request, uint32_t direction, int error)
{
	char name[INODE_NAME_MAX];

	inode_name(request->inode, name);
	if (error)
		log_warning("token %" PRIu64 " refused: %s uid %u pid %d size %" PRIu64 " exporter %s: %s",
			    request->id, name, request->uid, request->pid, request->size, request->exporter,
			    refusal_name(error));
	else
		log_info("token %" PRIu64 " granted: %s uid %u pid %d size %" PRIu64 " exporter %s, %s",
			 request->id, name, request->uid, request->pid, request->size, request->exporter,
			 direction_name(direction));
}

static void log_end(const struct token *token, const struct token_end *end)
{
	char name[INODE_NAME_MAX];

	log_info("token %" PRIu64 " %s: %s uid %u pid %d size %" PRIu64 " exporter %s, %" PRIu64
		 " requests, %" PRIu64 " bytes read, %" PRIu64 " bytes written",
		 token->id, reason_name(end->reason), inode_name(token->inode, name), token->uid, token->pid,
		 token->size, token->exporter, end->requests, end->read_bytes, end->write_bytes);
}

void broker_begin(const struct broker_policy *policy)
{
	broker.policy = *policy;
}

int broker_grant(const struct token_request *request, uint32_t *direction)
{
	int error;

	pthread_mutex_lock(&broker.lock);
	error = check(request, direction);
	if (!error)
		error = add_token(request);
	pthread_mutex_unlock(&broker.lock);
	log_grant(request, *direction, error);
	return error;
}

bool broker_release(const struct token_end *end)
{
	struct token *token = take_token(end->id);

	if (!token)
		return false;
	log_end(token, end);
	free_token(token);
	return true;
}

void broker_withdraw(uint64_t id)
{
	struct token *token = take_token(id);

	if (!token)
		return;
	log_info("token %" PRIu64 " withdrawn: its program was gone before the answer", id);
	free_token(token);
}

void broker_end(void)
{
	struct token *token;
	uint64_t ended = 0;

	for (size_t i = 0; i < TOKEN_BUCKETS; i++) {
		while (broker.tokens[i]) {
			token = take_token(broker.tokens[i]->id);
			free_token(token);
			ended++;
		}
	}
	if (ended)
		log_info("%" PRIu64 " tokens ended with the mount", ended);
}

struct broker_count broker_total(void)
{
	struct broker_count count;

	pthread_mutex_lock(&broker.lock);
	count = broker.total;
	pthread_mutex_unlock(&broker.lock);
	return count;
}

struct broker_count broker_of_user(uid_t uid)
{
	struct broker_count count = { 0 };
	struct user *user;

	pthread_mutex_lock(&broker.lock);
	user = *user_slot(uid);
	if (user)
		count = user->count;
	pthread_mutex_unlock(&broker.lock);
	return count;
}
