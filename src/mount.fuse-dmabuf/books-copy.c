/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdlib.h>

#include "books-copy.h"
#include "inode.h"

static size_t number_of_users(void)
{
	size_t number = 0;

	for (const struct user *user = books_next_user(NULL); user; user = books_next_user(user))
		number++;
	return number;
}

static void copy_token(struct books_copy *copy, const struct token *token)
{
	struct token *to = &copy->tokens[copy->token_count++];

	*to = *token;
	to->request.owner.groups = NULL;
	to->request.owner.group_count = 0;
	inode_keep(to->request.inode);
}

bool books_copy_make(struct books_copy *copy)
{
	*copy = (struct books_copy){
		.all = books_all(),
		.users = calloc(number_of_users() + 1, sizeof(*copy->users)),
		.tokens = calloc(books_entries() + 1, sizeof(*copy->tokens)),
	};
	if (!copy->users || !copy->tokens)
		return false;
	for (const struct user *user = books_next_user(NULL); user; user = books_next_user(user))
		copy->users[copy->user_count++] = *user;
	for (const struct token *token = books_oldest(); token; token = token->newer)
		copy_token(copy, token);
	return true;
}

void books_copy_free(struct books_copy *copy)
{
	for (size_t i = 0; i < copy->token_count; i++)
		inode_let_go(copy->tokens[i].request.inode);
	free(copy->tokens);
	free(copy->users);
}
