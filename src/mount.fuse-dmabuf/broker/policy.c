/* SPDX-License-Identifier: GPL-2.0-or-later */
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

static bool ends(const char *name)
{
	return !*name || *name == '/';
}

/* Of one name. It never goes back further than to the last star, so it takes no stack and no time to speak of. */
static bool name_fits(const char *pattern, const char *name)
{
	const char *behind_star = NULL, *retry = NULL;

	while (!ends(name)) {
		if (*pattern == '*') {
			behind_star = ++pattern;
			retry = name;
		} else if (*pattern == '?' || *pattern == *name) {
			pattern++;
			name++;
		} else if (behind_star) {
			pattern = behind_star;
			name = ++retry;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return ends(pattern);
}

/* Not fnmatch(): it calls itself for each name, and a path of 2000 names is too much for a thread's stack. */
bool policy_path_fits(const char *pattern, const char *path)
{
	while (name_fits(pattern, path)) {
		pattern = strchrnul(pattern, '/');
		/* Several slashes are as good as one. */
		while (*pattern && pattern[1] == '/')
			pattern++;
		path = strchrnul(path, '/');
		/* A directory above, also when a slash says so. */
		if (!*pattern || (*path && !pattern[1]))
			return true;
		if (!*path)
			return false;
		pattern++;
		path++;
	}
	return false;
}

/* Whether it leads to the file now. */
static bool is_name_of(const struct inode *inode, const char *name)
{
	struct stat attr, of_file;

	return !fstat(inode->fd, &of_file) &&
	       !fstatat(inode_from_nodeid(FUSE_ROOT_ID)->fd, name + 1, &attr, AT_SYMLINK_NOFOLLOW) &&
	       attr.st_dev == of_file.st_dev && attr.st_ino == of_file.st_ino;
}

/* What the kernel appends to a name that was removed; but a file can also be called so. */
static void take_mark_of_removal_away(const struct inode *inode, char *name)
{
	static const char mark[] = " (deleted)";
	size_t length = strlen(name), mark_length = strlen(mark);

	if (length > mark_length && !strcmp(name + length - mark_length, mark) && !is_name_of(inode, name))
		name[length - mark_length] = '\0';
}

bool policy_file_name(const struct inode *inode, char name[INODE_NAME_MAX])
{
	inode_name(inode, name);
	/* A path longer than PATH_MAX gives nothing; the root alone is not where a file can be. */
	if (name[0] != '/' || !name[1])
		return false;
	take_mark_of_removal_away(inode, name);
	return true;
}

static bool has_path(const struct policy_rule *rule, const char *path)
{
	for (size_t i = 0; i < rule->path_count; i++) {
		if (policy_path_fits(rule->paths[i], path))
			return true;
	}
	return !rule->path_count;
}

/* A rule that may or may not fit, because the path is not known (NULL), allows nothing. */
static uint32_t rules_allow(const struct policy *policy, const struct owner *owner, const char *path)
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

/* The directions for which the owner could open the file now. */
static uint32_t rights_allow(const struct owner *owner, const struct inode *inode)
{
	int rights = owner_rights(owner, inode->fd);

	return (rights & R_OK ? FUSE_DMABUF_TOKEN_READ : 0) | (rights & W_OK ? FUSE_DMABUF_TOKEN_WRITE : 0);
}

uint32_t policy_directions(const struct policy *policy, const struct owner *owner,
			   const struct inode *inode, uint32_t asked)
{
	char name[INODE_NAME_MAX];

	if (policy->deny || (policy->deny_removed && is_removed(inode)))
		return 0;
	if (policy->rule_count)
		asked &= rules_allow(policy, owner, policy_file_name(inode, name) ? name : NULL);
	return asked ? asked & rights_allow(owner, inode) : 0;
}

static const struct token_count *limit_of_user(const struct policy *policy, const struct owner *owner)
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

/* Divided, because a limit that is none cannot be doubled. */
const char *policy_entries_limit(const struct policy *policy, const struct owner *owner, uint64_t all, uint64_t user)
{
	if (all / 2 >= policy->all.tokens)
		return "more than twice max_tokens, with revoked ones that are still held";
	if (user / 2 >= limit_of_user(policy, owner)->tokens)
		return "more than twice the max_tokens of this user, with revoked ones that are still held";
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
