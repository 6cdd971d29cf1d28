/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The broker's books: all tokens, and how much each user has. Whoever calls the functions below, or uses a
 * token that they gave, holds the lock.
 */
#ifndef BOOKS_H
#define BOOKS_H

#include <stdbool.h>
#include <sys/queue.h>
#include <time.h>

#include "broker/token.h"
#include "containers/hash-table.h"

/* Of those that are not revoked: what counts against limits. */
struct token_count {
	uint64_t tokens, bytes;
};

void token_count_add(struct token_count *count, uint64_t size);

struct user {
	struct hash_link link;
	uid_t uid;
	uint64_t entries;       /* revoked ones too */
	struct token_count count;
	struct token_count checked;     /* broker.c */
};

struct token {
	struct hash_link link;
	TAILQ_ENTRY(token) order;       /* of the grants */
	uint64_t number;                /* of the grant, consecutive */
	struct token_request request;   /* node and groups are the books' own */
	struct user *user;
	struct tokens_of_file *of_file;
	uint32_t direction;             /* granted */
	struct timespec granted;        /* CLOCK_BOOTTIME */
	bool answered;                  /* the kernel knows of the grant */
	bool revoking;                  /* somebody waits for the kernel to end it */
	bool revoked;                   /* no DMA any more, but a program still holds it */
};

void books_lock(void);
void books_unlock(void);

/* Gives the lock away until a token was removed, or somebody called books_announce(). */
void books_wait(void);
void books_announce(void);

/* The request's groups go over to the books. False: out of memory. */
bool books_add(const struct token_request *request, uint32_t direction);

/* NULL: there is none with this id. */
struct token *books_find(uint64_t id);

/* It counts no more. */
void books_set_revoked(struct token *token);

/* Takes the token out, for token_free(). */
void books_remove(struct token *token);

/* Lets its node go. Needs no lock. */
void token_free(struct token *token);

/* The one that was granted first, of those that are left; NULL: there are none. */
struct token *books_oldest(void);

/*
 * A walk over those that were granted before it began, in that order. Now and then it gives the lock away, so that
 * nobody waits for the end of a long one; tokens may end meanwhile.
 */
struct books_walk {
	TAILQ_ENTRY(books_walk) link;
	struct token *upcoming;
	uint64_t last;          /* number of the newest when it began */
	unsigned int looked_at;
};

void books_walk_begin(struct books_walk *walk);
struct token *books_walk_next(struct books_walk *walk);   /* NULL: no more */
void books_walk_end(struct books_walk *walk);

struct token_count books_all(void);
struct token_count books_user(uid_t uid);

/* Also the revoked ones that are still held. */
uint64_t books_entries_of(uid_t uid);

/* All that are in the books, also the revoked ones. */
uint64_t books_entries(void);

/* Returns true if there are tokens of the file, also if they are revoked. */
bool books_have_file(const struct inode *inode);

/* All users that have tokens, in no order; NULL gives the first, and no more is NULL. */
struct user *books_next_user(const struct user *user);

#endif
