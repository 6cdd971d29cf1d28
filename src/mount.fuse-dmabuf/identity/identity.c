/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "identity/identity.h"
#include "identity/privileges.h"

/* Lists that are longer are set each time. */
#define REMEMBERED_GROUPS 64

/* The groups that this thread has. They stay after identity_end(): next to CAP_DAC_OVERRIDE they decide nothing. */
static _Thread_local struct {
	bool known;
	size_t count;
	gid_t gids[REMEMBERED_GROUPS];
} present;

/* What identity_end() brings back. */
static _Thread_local struct {
	uint64_t capabilities;
	bool other_ids;         /* the thread has those of somebody else */
} own;

static bool has_groups(const struct identity *identity)
{
	return present.known && present.count == identity->group_count &&
	       (!present.count || !memcmp(present.gids, identity->groups, present.count * sizeof(gid_t)));
}

/* The system call, because glibc's setgroups() changes all threads. */
static bool set_groups(const struct identity *identity)
{
	if (has_groups(identity))
		return true;
	present.known = false;
	if (syscall(SYS_setgroups, identity->group_count, identity->groups))
		return false;
	if (identity->group_count > REMEMBERED_GROUPS)
		return true;
	present.known = true;
	present.count = identity->group_count;
	if (present.count)
		memcpy(present.gids, identity->groups, present.count * sizeof(gid_t));
	return true;
}

/* setfsuid() does not say whether it failed; asked for an impossible id, it says which one there is. */
static bool set_ids(uid_t uid, gid_t gid)
{
	setfsgid(gid);
	setfsuid(uid);
	return setfsgid((gid_t)-1) == (int)gid && setfsuid((uid_t)-1) == (int)uid;
}

/* The server's, without a system call. */
static uid_t own_uid(void)
{
	return (uid_t)getauxval(AT_EUID);
}

static gid_t own_gid(void)
{
	return (gid_t)getauxval(AT_EGID);
}

static bool take_ids(const struct identity *identity)
{
	own.other_ids = identity->uid != own_uid() || identity->gid != own_gid();
	return !own.other_ids || set_ids(identity->uid, identity->gid);
}

bool identity_assume(const struct identity *identity)
{
	own.capabilities = privileges_effective();
	own.other_ids = false;
	errno = EPERM;
	if (set_groups(identity) && take_ids(identity) && privileges_set_effective(identity->capabilities))
		return true;
	identity_end();
	return false;
}

void identity_end(void)
{
	int saved = errno;

	/* A thread that kept the ids of a user must not serve others. */
	if (!privileges_set_effective(own.capabilities) || (own.other_ids && !set_ids(own_uid(), own_gid())))
		abort();
	errno = saved;
}
