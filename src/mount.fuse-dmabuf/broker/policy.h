/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Policy: who may hold which tokens. policy-load.c makes a policy of the mount options, and
 * policy-file.c of a policy file.
 */
#ifndef POLICY_H
#define POLICY_H

#include <stdbool.h>

#include "broker/books.h"
#include "identity/owner.h"
#include "nodes/inode.h"

/*
 * The users and groups that a rule or a quota is about: an owner has to be one of the users and in
 * one of the groups. An empty list is about everybody.
 */
struct policy_who {
	uid_t *users;
	gid_t *groups;
	size_t user_count, group_count;
};

/* The first rule that fits decides; if none fits, everything is allowed. */
struct policy_rule {
	struct policy_who who;
	char **paths;           /* patterns; none: all files */
	size_t path_count;
	uint32_t directions;    /* allowed; 0: no token */
};

/* The first quota that fits a user sets the user's limits, in place of the policy's user limits. */
struct policy_quota {
	struct policy_who who;
	struct token_count limit;
};

struct policy {
	bool deny;                      /* no tokens at all */
	bool deny_removed;              /* no tokens of files without a link */
	struct token_count all, user;   /* limits of all users together, and of each user */
	struct policy_rule *rules;
	size_t rule_count;
	struct policy_quota *quotas;
	size_t quota_count;
};

/*
 * Returns those of the @asked directions that the policy and the present permissions of the file
 * allow the owner.
 */
uint32_t policy_directions(const struct policy *policy, const struct owner *owner,
			   const struct inode *inode, uint32_t asked);

/*
 * Returns NULL if one more token of @size bytes is within the limits, beside the tokens that all
 * users and this user have. Otherwise returns the reason.
 */
const char *policy_limit(const struct policy *policy, const struct owner *owner, uint64_t size,
			 const struct token_count *all, const struct token_count *user);

/*
 * Returns NULL if the books may have one more entry, or the reason. Entries are tokens that count,
 * and tokens that were revoked and are still held, which cost memory and time, too. There may be
 * twice as many entries as tokens: a program that lost its tokens registers all again before it
 * lets go of the old ones.
 */
const char *policy_entries_limit(const struct policy *policy, const struct owner *owner,
				 uint64_t all, uint64_t user);

/*
 * Returns true if the pattern is that of the file, or of a directory above the file. * and ? do not
 * stand for slashes.
 */
bool policy_path_matches(const char *pattern, const char *path);

/*
 * Finds the path of a file, for patterns: where the file is now, or was when it was removed.
 * Returns false if the path cannot be found out.
 */
bool policy_file_name(const struct inode *inode, char name[INODE_NAME_MAX]);

/* Frees a policy; NULL is allowed. */
void policy_free(struct policy *policy);

#endif
