/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/books.h"
#include "nodes/inode.h"

/* Ids are consecutive, so the lowest bits spread them evenly; a chain is short up to 10^4 tokens. */
#define TOKEN_BUCKETS 4096u

/* Users with tokens at the same time are few. */
#define USER_BUCKETS 64u

/* A new policy makes some ten system calls for each: together they take less than a millisecond. */
#define WALK_PORTION 64
#define GIVE_WAY_MICROSECONDS 50

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct token_count all;
	uint64_t entries;
	uint64_t grants;
	struct token *oldest, *newest;
	struct books_walk *walks;
	struct token *tokens[TOKEN_BUCKETS];
	struct user *users[USER_BUCKETS];
} books = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

void books_lock(void)
{
	pthread_mutex_lock(&books.lock);
}

void books_unlock(void)
{
	pthread_mutex_unlock(&books.lock);
}

void books_wait(void)
{
	pthread_cond_wait(&books.changed, &books.lock);
}

void books_announce(void)
{
	pthread_cond_broadcast(&books.changed);
}

static struct token **token_slot(uint64_t id)
{
	struct token **slot = &books.tokens[id % TOKEN_BUCKETS];

	while (*slot && (*slot)->request.id != id)
		slot = &(*slot)->next;
	return slot;
}

static struct user **user_slot(uid_t uid)
{
	struct user **slot = &books.users[uid % USER_BUCKETS];

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
	if (user->entries)
		return;
	*user_slot(user->uid) = user->next;
	free(user);
}

void token_count_add(struct token_count *count, uint64_t size)
{
	count->tokens++;
	count->bytes += size;
}

static void count_subtract(struct token_count *count, uint64_t size)
{
	count->tokens--;
	count->bytes -= size;
}

static void add_newest(struct token *token)
{
	token->number = ++books.grants;
	token->older = books.newest;
	*(books.newest ? &books.newest->newer : &books.oldest) = token;
	books.newest = token;
}

static void remove_from_order(struct token *token)
{
	for (struct books_walk *walk = books.walks; walk; walk = walk->next) {
		if (walk->upcoming == token)
			walk->upcoming = token->newer;
	}
	*(token->older ? &token->older->newer : &books.oldest) = token->newer;
	*(token->newer ? &token->newer->older : &books.newest) = token->older;
}

bool books_add(const struct token_request *request, uint32_t direction)
{
	struct token *token = malloc(sizeof(*token));
	struct user *user = token ? user_get(request->owner.uid) : NULL;

	if (!user) {
		free(token);
		return false;
	}
	*token = (struct token){ .request = *request, .user = user, .direction = direction };
	clock_gettime(CLOCK_BOOTTIME, &token->granted);
	inode_keep(request->inode);
	request->inode->tokens++;
	*token_slot(request->id) = token;
	add_newest(token);
	books.entries++;
	user->entries++;
	token_count_add(&books.all, request->size);
	token_count_add(&user->count, request->size);
	return true;
}

struct token *books_find(uint64_t id)
{
	return *token_slot(id);
}

void books_set_revoked(struct token *token)
{
	if (token->revoked)
		return;
	token->revoked = true;
	count_subtract(&books.all, token->request.size);
	count_subtract(&token->user->count, token->request.size);
}

void books_remove(struct token *token)
{
	books_set_revoked(token);
	*token_slot(token->request.id) = token->next;
	remove_from_order(token);
	books.entries--;
	token->user->entries--;
	user_put(token->user);
	token->request.inode->tokens--;
	books_announce();
}

void token_free(struct token *token)
{
	inode_let_go(token->request.inode);
	owner_free(&token->request.owner);
	free(token);
}

struct token *books_oldest(void)
{
	return books.oldest;
}

void books_walk_begin(struct books_walk *walk)
{
	*walk = (struct books_walk){
		.next = books.walks, .upcoming = books.oldest, .last = books.newest ? books.newest->number : 0 };
	books.walks = walk;
}

/* A mutex that is locked again at once is nobody else's. */
static void give_way(void)
{
	books_unlock();
	usleep(GIVE_WAY_MICROSECONDS);
	books_lock();
}

struct token *books_walk_next(struct books_walk *walk)
{
	struct token *token;

	if (++walk->looked_at % WALK_PORTION == 0)
		give_way();
	token = walk->upcoming;
	if (!token || token->number > walk->last)
		return NULL;
	walk->upcoming = token->newer;
	return token;
}

void books_walk_end(struct books_walk *walk)
{
	struct books_walk **slot = &books.walks;

	while (*slot != walk)
		slot = &(*slot)->next;
	*slot = walk->next;
}

struct token_count books_all(void)
{
	return books.all;
}

struct token_count books_user(uid_t uid)
{
	const struct user *user = *user_slot(uid);

	return user ? user->count : (struct token_count){ 0 };
}

uint64_t books_entries_of(uid_t uid)
{
	const struct user *user = *user_slot(uid);

	return user ? user->entries : 0;
}

uint64_t books_entries(void)
{
	return books.entries;
}

struct user *books_next_user(const struct user *user)
{
	size_t bucket = 0;

	if (user && user->next)
		return user->next;
	if (user)
		bucket = user->uid % USER_BUCKETS + 1;
	while (bucket < USER_BUCKETS && !books.users[bucket])
		bucket++;
	return bucket < USER_BUCKETS ? books.users[bucket] : NULL;
}
