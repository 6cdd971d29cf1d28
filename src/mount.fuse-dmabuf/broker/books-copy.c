/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copies of the users, and of the tokens in batches. */
#include <stdlib.h>

#include "broker/books-copy.h"
#include "nodes/inode.h"

static size_t count_users(void)
{
	size_t number = 0;

	for (const struct user *user = books_next_user(NULL); user; user = books_next_user(user))
		number++;
	return number;
}

bool users_copy_make(struct users_copy *copy)
{
	*copy = (struct users_copy){ .all = calloc(count_users() + 1, sizeof(*copy->all)) };
	if (!copy->all)
		return false;
	for (const struct user *user = books_next_user(NULL); user; user = books_next_user(user))
		copy->all[copy->count++] = (struct user_copy){ user->uid, user->count };
	return true;
}

void users_copy_free(struct users_copy *copy)
{
	free(copy->all);
}

static void copy_token(struct token *to, const struct token *token)
{
	*to = *token;
	to->request.owner.groups = NULL;
	to->request.owner.group_count = 0;
	inode_keep(to->request.inode);
}

bool tokens_copy_next(struct tokens_copy *copy, struct books_walk *walk)
{
	const struct token *token;

	copy->count = 0;
	books_lock();
	while (copy->count < TOKENS_COPY_MAX && (token = books_walk_next(walk)))
		copy_token(&copy->tokens[copy->count++], token);
	books_unlock();
	return copy->count;
}

void tokens_copy_free(struct tokens_copy *copy)
{
	for (size_t i = 0; i < copy->count; i++)
		inode_let_go(copy->tokens[i].request.inode);
}
