/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who may have which tokens. policy-file.c reads one from a file; the rest is given by mount options. */
#ifndef POLICY_H
#define POLICY_H

#include <stdbool.h>

#include "broker/books.h"
#include "identity/owner.h"
#include "nodes/inode.h"

/* Users and groups that a rule is about. A part that lists none is about all. */
struct policy_who {
	uid_t *users;
	gid_t *groups;
	size_t user_count, group_count;
};

/* The first rule that fits decides; where none fits, everything is allowed. */
struct policy_rule {
	struct policy_who who;
	char **paths;           /* patterns; none: all files */
	size_t path_count;
	uint32_t directions;    /* allowed; 0: no token */
};

/* The first that fits sets the limits of a user, in the place of the policy's own. */
struct policy_quota {
	struct policy_who who;
	struct token_count limit;
};

struct policy {
	bool deny;                      /* no tokens at all */
	bool deny_removed;              /* none on files that have no name (any more) */
	struct token_count all, user;   /* limits of all together, and of each user */
	struct policy_rule *rules;
	size_t rule_count;
	struct policy_quota *quotas;
	size_t quota_count;
};

/* The directions, of those asked for, that the policy and the file's permissions allow the owner now. */
uint32_t policy_directions(const struct policy *policy, const struct owner *owner,
			   const struct inode *inode, uint32_t asked);

/* NULL, or why there is no room for one more token beside those that there are. */
const char *policy_limit(const struct policy *policy, const struct owner *owner, uint64_t size,
			 const struct token_count *all, const struct token_count *user);

/*
 * The same for the number of entries in the books, where tokens are that were revoked and are still held, too. They
 * cost memory and time. There may be as many of them as of those that count: a program that lost its tokens
 * registers all again before it lets the old ones go.
 */
const char *policy_entries_limit(const struct policy *policy, const struct owner *owner, uint64_t all, uint64_t user);

/* A pattern fits a file, or a directory above it; * and ? stop at slashes. */
bool policy_path_fits(const char *pattern, const char *path);

/* Where a file is, for patterns; of one that was removed, where it was. False: it cannot be found out. */
bool policy_file_name(const struct inode *inode, char name[INODE_NAME_MAX]);

void policy_free(struct policy *policy);

#endif
