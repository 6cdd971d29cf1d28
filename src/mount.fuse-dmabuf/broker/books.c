/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The books: hash tables of tokens, users and files, and the list of tokens in grant order. */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/books.h"
#include "nodes/inode.h"

/*
 * The number of tokens of a file. It is not a member of the node, because nodes know nothing of
 * tokens, and most files have none.
 */
struct file_tokens {
	struct hash_link link;
	const struct inode *inode;
	uint64_t count;
};

/*
 * Tokens that a walk visits before it yields the lock. A new policy makes some ten system calls for
 * each token: 64 tokens take less than a millisecond.
 */
#define WALK_BATCH 64

/* In microseconds: how long a walk leaves the lock to waiting threads. */
#define YIELD_MICROSECONDS 50

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct token_count all;
	uint64_t entries;
	uint64_t grants;
	TAILQ_HEAD(token_list, token) order;
	TAILQ_HEAD(, books_walk) walks;
	struct hash_table tokens;       /* by id */
	struct hash_table users;        /* by uid */
	struct hash_table files;        /* by the address of the node */
} books = {
	.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER,
	.order = TAILQ_HEAD_INITIALIZER(books.order), .walks = TAILQ_HEAD_INITIALIZER(books.walks),
};

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

static struct user *user_of(struct hash_link *link)
{
	return link ? hash_entry(link, struct user, link) : NULL;
}

static struct user *user_find(uid_t uid)
{
	return user_of(hash_table_find(&books.users, uid));
}

static struct user *user_get(uid_t uid)
{
	struct user *user = user_find(uid);

	if (user)
		return user;
	user = calloc(1, sizeof(*user));
	if (user) {
		user->uid = uid;
		hash_table_add(&books.users, &user->link, uid);
	}
	return user;
}

static void user_put(struct user *user)
{
	if (user->entries)
		return;
	hash_table_remove(&books.users, &user->link);
	free(user);
}

static struct file_tokens *file_find(const struct inode *inode)
{
	struct hash_link *link = hash_table_find(&books.files, (uintptr_t)inode);

	return link ? hash_entry(link, struct file_tokens, link) : NULL;
}

static struct file_tokens *file_get(const struct inode *inode)
{
	struct file_tokens *file = file_find(inode);

	if (file)
		return file;
	file = calloc(1, sizeof(*file));
	if (file) {
		file->inode = inode;
		hash_table_add(&books.files, &file->link, (uintptr_t)inode);
	}
	return file;
}

static void file_put(struct file_tokens *file)
{
	if (file->count)
		return;
	hash_table_remove(&books.files, &file->link);
	free(file);
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

/* Removes the token from the list. A walk that would visit the token next goes on behind it. */
static void remove_from_order(struct token *token)
{
	struct books_walk *walk;

	TAILQ_FOREACH(walk, &books.walks, link) {
		if (walk->next == token)
			walk->next = TAILQ_NEXT(token, order);
	}
	TAILQ_REMOVE(&books.order, token, order);
}

/* Undoes a books_add() that ran out of memory: frees what books_add() has allocated. */
static bool undo_add(struct token *token, struct user *user)
{
	if (user)
		user_put(user);
	free(token);
	return false;
}

bool books_add(const struct token_request *request, uint32_t direction)
{
	struct token *token = malloc(sizeof(*token));
	struct user *user = token ? user_get(request->owner.uid) : NULL;
	struct file_tokens *file = user ? file_get(request->inode) : NULL;

	if (!file)
		return undo_add(token, user);
	*token = (struct token){
		.number = ++books.grants, .request = *request, .user = user, .file_tokens = file,
		.direction = direction };
	clock_gettime(CLOCK_BOOTTIME, &token->granted);
	inode_keep(request->inode);
	hash_table_add(&books.tokens, &token->link, request->id);
	TAILQ_INSERT_TAIL(&books.order, token, order);
	books.entries++;
	user->entries++;
	file->count++;
	token_count_add(&books.all, request->size);
	token_count_add(&user->count, request->size);
	return true;
}

struct token *books_find(uint64_t id)
{
	struct hash_link *link = hash_table_find(&books.tokens, id);

	return link ? hash_entry(link, struct token, link) : NULL;
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
	hash_table_remove(&books.tokens, &token->link);
	remove_from_order(token);
	books.entries--;
	token->user->entries--;
	user_put(token->user);
	token->file_tokens->count--;
	file_put(token->file_tokens);
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
	return TAILQ_FIRST(&books.order);
}

void books_walk_begin(struct books_walk *walk)
{
	struct token *newest = TAILQ_LAST(&books.order, token_list);

	*walk = (struct books_walk){
		.next = TAILQ_FIRST(&books.order), .last_number = newest ? newest->number : 0 };
	TAILQ_INSERT_TAIL(&books.walks, walk, link);
}

/* Sleeps without the lock: a thread that relocks at once would starve the waiting threads. */
static void yield_lock(void)
{
	books_unlock();
	usleep(YIELD_MICROSECONDS);
	books_lock();
}

struct token *books_walk_next(struct books_walk *walk)
{
	struct token *token;

	if (++walk->steps % WALK_BATCH == 0)
		yield_lock();
	token = walk->next;
	if (!token || token->number > walk->last_number)
		return NULL;
	walk->next = TAILQ_NEXT(token, order);
	return token;
}

void books_walk_end(struct books_walk *walk)
{
	TAILQ_REMOVE(&books.walks, walk, link);
}

struct token_count books_count_of_all(void)
{
	return books.all;
}

struct token_count books_count_of_user(uid_t uid)
{
	const struct user *user = user_find(uid);

	return user ? user->count : (struct token_count){ 0 };
}

uint64_t books_entries_of_user(uid_t uid)
{
	const struct user *user = user_find(uid);

	return user ? user->entries : 0;
}

uint64_t books_entries(void)
{
	return books.entries;
}

bool books_has_tokens_of(const struct inode *inode)
{
	return file_find(inode);
}

struct user *books_next_user(const struct user *user)
{
	return user_of(hash_table_walk(&books.users, user ? &user->link : NULL));
}
