/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The broker's books: all tokens of the mount, and how much each user has.
 * One lock protects them. A caller holds books_lock() in every function below and as long as it
 * uses a token or a user that a function returned, except where a comment says otherwise.
 */
#ifndef BOOKS_H
#define BOOKS_H

#include <stdbool.h>
#include <sys/queue.h>
#include <time.h>

#include "broker/token.h"
#include "containers/hash-table.h"

/* Number and bytes of tokens that are not revoked: the amounts that count against limits. */
struct token_count {
	uint64_t tokens, bytes;
};

/* Adds one token of @size bytes. */
void token_count_add(struct token_count *count, uint64_t size);

/* A user who has at least one token in the books. */
struct user {
	struct hash_link link;
	uid_t uid;
	uint64_t entries;               /* tokens in the books, also revoked ones */
	struct token_count count;
	struct token_count checked;     /* tokens that the pass of broker_set_policy() has kept */
};

struct token {
	struct hash_link link;
	TAILQ_ENTRY(token) order;       /* in the list of all tokens, in grant order */
	uint64_t number;                /* of the grant; grants are numbered consecutively */
	struct token_request request;   /* the books hold its node and own its groups */
	struct user *user;
	struct file_tokens *file_tokens;
	uint32_t direction;             /* granted */
	struct timespec granted;        /* CLOCK_BOOTTIME */
	bool answered;                  /* the kernel has the answer, so it knows the token */
	bool revoking;                  /* a thread waits for the kernel to revoke it */
	bool revoked;                   /* does no DMA any more, but a program still holds it */
};

/* Takes and releases the lock of the books. */
void books_lock(void);
void books_unlock(void);

/*
 * Releases the lock, waits until a token is removed or books_announce() is called, and takes the
 * lock again. Caller holds books_lock().
 */
void books_wait(void);

/* Wakes all threads in books_wait(). Caller holds books_lock(). */
void books_announce(void);

/*
 * Adds a token. On success the books own the groups of the request. Returns false if out of memory.
 * Caller holds books_lock().
 */
bool books_add(const struct token_request *request, uint32_t direction);

/* Returns the token with this id, or NULL. Caller holds books_lock(). */
struct token *books_find(uint64_t id);

/* Marks the token as revoked: it counts against limits no more. Caller holds books_lock(). */
void books_set_revoked(struct token *token);

/*
 * Removes the token from the books. The caller frees it with token_free().
 * Caller holds books_lock().
 */
void books_remove(struct token *token);

/* Frees a removed token and lets go of its node. Caller needs no lock. */
void token_free(struct token *token);

/* Returns the token in the books that was granted first, or NULL. Caller holds books_lock(). */
struct token *books_oldest(void);

/*
 * A walk over the tokens that were granted before the walk began, in the order of their grants.
 * books_walk_next() releases the lock now and then, so that no other thread waits for the end of a
 * long walk; tokens may end meanwhile, and the walk leaves those out.
 */
struct books_walk {
	TAILQ_ENTRY(books_walk) link;
	struct token *next;
	uint64_t last_number;   /* of the newest token when the walk began */
	unsigned int steps;
};

/* Begins a walk; books_walk_end() must end it. Caller holds books_lock(). */
void books_walk_begin(struct books_walk *walk);

/*
 * Returns the next token, or NULL after the last. May release the lock and take it again: a token
 * that was returned earlier may have been freed. Caller holds books_lock().
 */
struct token *books_walk_next(struct books_walk *walk);

/* Caller holds books_lock(). */
void books_walk_end(struct books_walk *walk);

/* Return what all users, and what one user, have. Caller holds books_lock(). */
struct token_count books_count_of_all(void);
struct token_count books_count_of_user(uid_t uid);

/*
 * Return the number of tokens in the books of one user, and of all users; tokens that are revoked
 * and still held are in the books, too. Caller holds books_lock().
 */
uint64_t books_entries_of_user(uid_t uid);
uint64_t books_entries(void);

/*
 * Returns true if the books have a token of the file, also if it is revoked.
 * Caller holds books_lock().
 */
bool books_has_tokens_of(const struct inode *inode);

/*
 * Returns the user after @user, in no order: NULL gives the first, and NULL is after the last.
 * Only users who have tokens in the books are there. Caller holds books_lock().
 */
struct user *books_next_user(const struct user *user);

#endif
