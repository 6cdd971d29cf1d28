/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Owners of tokens: their groups, capabilities and rights. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "identity/groups.h"
#include "identity/identity.h"
#include "identity/owner.h"
#include "identity/privileges.h"
#include "identity/processes.h"

/*
 * Capabilities of another user namespace count only for some files. They are ignored, because
 * owner->capabilities count for all files.
 */
static uint64_t capabilities_of(const struct process *process, pid_t pid)
{
	uint64_t capabilities = process->capabilities & PRIVILEGES_OF_ACCESS;

	return capabilities && user_namespace_is_own(pid) ? capabilities : 0;
}

static bool take_groups(struct owner *owner, const struct process *process)
{
	if (process->group_count > OWNER_GROUPS_MAX) {
		errno = E2BIG;
		return false;
	}
	owner->groups = groups_get(process->groups, process->group_count);
	if (!owner->groups && process->group_count) {
		errno = ENOMEM;
		return false;
	}
	owner->group_count = process->group_count;
	return true;
}

bool owner_read_process(struct owner *owner, pid_t pid)
{
	struct process process;
	bool known;

	if (!process_read(pid, &process)) {
		/* "No such process" would be a strange answer to a process. */
		if (errno == ENOENT || errno == ESRCH)
			errno = EACCES;
		return false;
	}
	known = take_groups(owner, &process);
	/*
	 * If the ids differ, the process has overridden its credentials for the request, and its
	 * capabilities are more than those of the request.
	 */
	if (known && process.fsuid == owner->uid && process.fsgid == owner->gid)
		owner->capabilities = capabilities_of(&process, pid);
	process_free(&process);
	return known;
}

void owner_free(struct owner *owner)
{
	groups_put(owner->groups);
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

static bool may_access(int fd, int mode)
{
	return !faccessat(fd, "", mode, AT_EACCESS | AT_EMPTY_PATH);
}

/* Asks the kernel, as the owner, so that ACLs and all else that the kernel checks count. */
int owner_rights(const struct owner *owner, int fd)
{
	const struct identity identity = {
		.uid = owner->uid, .gid = owner->gid, .groups = owner->groups,
		.group_count = owner->group_count, .capabilities = owner->capabilities,
	};
	int rights = 0;

	if (!identity_assume(&identity))
		return 0;
	rights |= may_access(fd, R_OK) ? R_OK : 0;
	rights |= may_access(fd, W_OK) ? W_OK : 0;
	identity_end();
	return rights;
}
