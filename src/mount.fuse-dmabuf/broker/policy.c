/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Applies a policy: its rules and patterns, the permissions of files, and the limits. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/policy.h"

static bool has_user(const struct policy_who *who, uid_t uid)
{
	for (size_t i = 0; i < who->user_count; i++) {
		if (who->users[i] == uid)
			return true;
	}
	return !who->user_count;
}

static bool has_group(const struct policy_who *who, const struct owner *owner)
{
	for (size_t i = 0; i < who->group_count; i++) {
		if (owner_in_group(owner, who->groups[i]))
			return true;
	}
	return !who->group_count;
}

static bool is_about(const struct policy_who *who, const struct owner *owner)
{
	return has_user(who, owner->uid) && has_group(who, owner);
}

static bool is_end_of_name(const char *text)
{
	return !*text || *text == '/';
}

/*
 * Returns true if the first name of the pattern fits the first name of the path. Goes back only to
 * the last star, never to an earlier one: so it needs no recursion, and no pattern takes
 * exponential time.
 */
static bool name_fits(const char *pattern, const char *name)
{
	const char *after_star = NULL, *retry = NULL;

	while (!is_end_of_name(name)) {
		if (*pattern == '*') {
			after_star = ++pattern;
			retry = name;
		} else if (*pattern == '?' || *pattern == *name) {
			pattern++;
			name++;
		} else if (after_star) {
			pattern = after_star;
			name = ++retry;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return is_end_of_name(pattern);
}

/*
 * fnmatch() is not used because it calls itself for each name: a path of 2000 names would overflow
 * the stack of a thread.
 */
bool policy_path_matches(const char *pattern, const char *path)
{
	while (name_fits(pattern, path)) {
		pattern = strchrnul(pattern, '/');
		/* Several slashes count as one. */
		while (*pattern && pattern[1] == '/')
			pattern++;
		path = strchrnul(path, '/');
		/*
		 * The pattern ends here: it fits the file or a directory above. A pattern with a
		 * final slash fits only a directory above.
		 */
		if (!*pattern || (*path && !pattern[1]))
			return true;
		if (!*path)
			return false;
		pattern++;
		path++;
	}
	return false;
}

/* Returns true if the path leads to the file now. */
static bool is_name_of(const struct inode *inode, const char *name)
{
	struct stat attr, of_file;

	return !fstat(inode->fd, &of_file) &&
	       !fstatat(inode_from_nodeid(FUSE_ROOT_ID)->fd, name + 1, &attr,
			AT_SYMLINK_NOFOLLOW) &&
	       attr.st_dev == of_file.st_dev && attr.st_ino == of_file.st_ino;
}

/*
 * Removes " (deleted)", which the kernel appends to the path of a removed file. The name of a file
 * may also end with these words: then the path leads to the file, and stays as it is.
 */
static void strip_deleted_mark(const struct inode *inode, char *name)
{
	static const char mark[] = " (deleted)";
	size_t length = strlen(name), mark_length = strlen(mark);

	if (length > mark_length && !strcmp(name + length - mark_length, mark) &&
	    !is_name_of(inode, name))
		name[length - mark_length] = '\0';
}

bool policy_file_name(const struct inode *inode, char name[INODE_NAME_MAX])
{
	inode_name(inode, name);
	/* The name is empty if the path is longer than PATH_MAX. A file is never the root. */
	if (name[0] != '/' || !name[1])
		return false;
	strip_deleted_mark(inode, name);
	return true;
}

static bool has_path(const struct policy_rule *rule, const char *path)
{
	for (size_t i = 0; i < rule->path_count; i++) {
		if (policy_path_matches(rule->paths[i], path))
			return true;
	}
	return !rule->path_count;
}

/*
 * Returns the directions that the rules allow. If the path is not known (NULL), it is not known
 * either whether a rule about paths fits: such a rule allows nothing.
 */
static uint32_t directions_by_rules(const struct policy *policy, const struct owner *owner,
				    const char *path)
{
	for (size_t i = 0; i < policy->rule_count; i++) {
		const struct policy_rule *rule = &policy->rules[i];

		if (!is_about(&rule->who, owner))
			continue;
		if (rule->path_count && !path)
			return 0;
		if (has_path(rule, path))
			return rule->directions;
	}
	return TOKEN_BOTH;
}

static bool is_removed(const struct inode *inode)
{
	struct stat attr;

	return !fstat(inode->fd, &attr) && !attr.st_nlink;
}

/* Returns the directions for which the owner could open the file now. */
static uint32_t directions_by_rights(const struct owner *owner, const struct inode *inode)
{
	int rights = owner_rights(owner, inode->fd);

	return (rights & R_OK ? FUSE_DMABUF_TOKEN_READ : 0) |
	       (rights & W_OK ? FUSE_DMABUF_TOKEN_WRITE : 0);
}

uint32_t policy_directions(const struct policy *policy, const struct owner *owner,
			   const struct inode *inode, uint32_t asked)
{
	char name[INODE_NAME_MAX];

	if (policy->deny || (policy->deny_removed && is_removed(inode)))
		return 0;
	if (policy->rule_count)
		asked &= directions_by_rules(policy, owner,
					     policy_file_name(inode, name) ? name : NULL);
	return asked ? asked & directions_by_rights(owner, inode) : 0;
}

static const struct token_count *limit_of_user(const struct policy *policy,
					       const struct owner *owner)
{
	for (size_t i = 0; i < policy->quota_count; i++) {
		if (is_about(&policy->quotas[i].who, owner))
			return &policy->quotas[i].limit;
	}
	return &policy->user;
}

const char *policy_limit(const struct policy *policy, const struct owner *owner, uint64_t size,
			 const struct token_count *all, const struct token_count *user)
{
	const struct token_count *limit = limit_of_user(policy, owner);

	if (all->tokens >= policy->all.tokens)
		return "more than max_tokens";
	if (all->bytes > policy->all.bytes || size > policy->all.bytes - all->bytes)
		return "more than max_bytes";
	if (user->tokens >= limit->tokens)
		return "more than the max_tokens of this user";
	if (user->bytes > limit->bytes || size > limit->bytes - user->bytes)
		return "more than the max_bytes of this user";
	return NULL;
}

/* Halves the entries: doubling the limit would overflow if it is UINT64_MAX, which is no limit. */
const char *policy_entries_limit(const struct policy *policy, const struct owner *owner,
				 uint64_t all, uint64_t user)
{
	if (all / 2 >= policy->all.tokens)
		return "more than twice max_tokens, with revoked ones that are still held";
	if (user / 2 >= limit_of_user(policy, owner)->tokens)
		return "more than twice the max_tokens of this user, "
		       "with revoked ones that are still held";
	return NULL;
}

static void free_who(struct policy_who *who)
{
	free(who->users);
	free(who->groups);
}

void policy_free(struct policy *policy)
{
	if (!policy)
		return;
	for (size_t i = 0; i < policy->rule_count; i++) {
		free_who(&policy->rules[i].who);
		for (size_t j = 0; j < policy->rules[i].path_count; j++)
			free(policy->rules[i].paths[j]);
		free(policy->rules[i].paths);
	}
	for (size_t i = 0; i < policy->quota_count; i++)
		free_who(&policy->quotas[i].who);
	free(policy->rules);
	free(policy->quotas);
	free(policy);
}
