/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "inode.h"
#include "owner.h"
#include "processes.h"
#include "token-protocol.h"

/* With these every file is open to the server. */
#define ACCESS_ALL (CAP_TO_MASK(CAP_DAC_OVERRIDE) | CAP_TO_MASK(CAP_DAC_READ_SEARCH))

static bool add_group(struct owner *owner, gid_t gid)
{
	gid_t *groups = realloc(owner->groups, (owner->group_count + 1) * sizeof(*groups));

	if (!groups)
		return false;
	groups[owner->group_count++] = gid;
	owner->groups = groups;
	return true;
}

/* "Groups:\t4 24 27 \n" */
static bool add_groups(struct owner *owner, const char *line)
{
	const char *at = line + strlen("Groups:");
	unsigned long gid;
	char *end;

	for (;; at = end) {
		gid = strtoul(at, &end, 10);
		if (end == at)
			return true;
		if (!add_group(owner, (gid_t)gid))
			return false;
	}
}

/* The line may be missing: a process that ends meanwhile has no status any more. */
static bool read_status(struct owner *owner, FILE *file)
{
	char *line = NULL;
	bool read = false;
	size_t room = 0;

	errno = ESRCH;
	while (getline(&line, &room, file) > 0) {
		if (strncmp(line, "Groups:", strlen("Groups:")))
			continue;
		read = add_groups(owner, line);
		break;
	}
	free(line);
	return read;
}

bool owner_read_groups(struct owner *owner, pid_t pid)
{
	FILE *file = process_status(pid);
	bool read = file && read_status(owner, file);

	if (file)
		fclose(file);
	if (read)
		return true;
	owner_free(owner);
	/* That there is no such process would be a strange answer to one. */
	if (errno == ENOENT || errno == ESRCH)
		errno = EACCES;
	return false;
}

void owner_free(struct owner *owner)
{
	free(owner->groups);
	owner->groups = NULL;
	owner->group_count = 0;
}

bool owner_in_group(const struct owner *owner, gid_t gid)
{
	if (owner->gid == gid)
		return true;
	for (size_t i = 0; i < owner->group_count; i++) {
		if (owner->groups[i] == gid)
			return true;
	}
	return false;
}

/* Of this thread alone, as are the ids below: glibc's setgroups() would change all threads. */
static bool set_access_all(bool on)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data))
		return false;
	data[0].effective = on ? data[0].effective | (data[0].permitted & ACCESS_ALL) :
				 data[0].effective & ~ACCESS_ALL;
	return !syscall(SYS_capset, &header, data);
}

static bool set_ids(const struct owner *owner)
{
	if (syscall(SYS_setgroups, owner->group_count, owner->groups))
		return false;
	setfsgid(owner->gid);
	setfsuid(owner->uid);
	return setfsgid((gid_t)-1) == (int)owner->gid && setfsuid((uid_t)-1) == (int)owner->uid;
}

static bool may(const struct inode *inode, int mode)
{
	return !faccessat(inode->fd, "", mode, AT_EACCESS | AT_EMPTY_PATH);
}

/* The kernel is asked, as the owner, so that ACLs and whatever else it knows count. */
uint32_t owner_rights(const struct owner *owner, const struct inode *inode)
{
	static const struct owner server = { 0 };
	uint32_t rights = 0;

	if (!owner->uid)
		return FUSE_DMABUF_TOKEN_READ | FUSE_DMABUF_TOKEN_WRITE;
	if (set_ids(owner) && set_access_all(false)) {
		rights |= may(inode, R_OK) ? FUSE_DMABUF_TOKEN_READ : 0;
		rights |= may(inode, W_OK) ? FUSE_DMABUF_TOKEN_WRITE : 0;
	}
	/* A thread that keeps the ids of a user must not serve others. */
	if (!set_ids(&server) || !set_access_all(true))
		abort();
	return rights;
}
