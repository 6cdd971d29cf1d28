/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Identity of a thread: sets its ids, groups and capabilities, with few system calls. */
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

/* In groups. A longer list is not remembered, and is set each time. */
#define REMEMBERED_GROUPS 64

/*
 * The groups that this thread has. They stay after identity_end(), because groups decide nothing
 * for a thread with CAP_DAC_OVERRIDE.
 */
static _Thread_local struct {
	bool known;
	size_t count;
	gid_t gids[REMEMBERED_GROUPS];
} current;

/* The state of this thread that identity_end() restores. */
static _Thread_local struct {
	uint64_t capabilities;
	bool has_other_ids;     /* the thread has the ids of another user or group */
} own;

static bool has_groups(const struct identity *identity)
{
	return current.known && current.count == identity->group_count &&
	       (!current.count ||
		!memcmp(current.gids, identity->groups, current.count * sizeof(gid_t)));
}

/* Uses the system call, because glibc's setgroups() changes all threads. */
static bool set_groups(const struct identity *identity)
{
	if (has_groups(identity))
		return true;
	current.known = false;
	if (syscall(SYS_setgroups, identity->group_count, identity->groups))
		return false;
	if (identity->group_count > REMEMBERED_GROUPS)
		return true;
	current.known = true;
	current.count = identity->group_count;
	if (current.count)
		memcpy(current.gids, identity->groups, current.count * sizeof(gid_t));
	return true;
}

/*
 * setfsuid() does not report failure. Called with an id that is not valid, it changes nothing and
 * returns the present id.
 */
static bool set_ids(uid_t uid, gid_t gid)
{
	setfsgid(gid);
	setfsuid(uid);
	return setfsgid((gid_t)-1) == (int)gid && setfsuid((uid_t)-1) == (int)uid;
}

/* The server's uid, which the kernel passed at the start: no system call is needed. */
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
	own.has_other_ids = identity->uid != own_uid() || identity->gid != own_gid();
	return !own.has_other_ids || set_ids(identity->uid, identity->gid);
}

bool identity_assume(const struct identity *identity)
{
	own.capabilities = privileges_effective();
	own.has_other_ids = false;
	errno = EPERM;
	if (set_groups(identity) && take_ids(identity) &&
	    privileges_set_effective(identity->capabilities))
		return true;
	identity_end();
	return false;
}

void identity_end(void)
{
	int saved = errno;

	/* A thread that kept the ids of a user must not serve other users. */
	if (!privileges_set_effective(own.capabilities) ||
	    (own.has_other_ids && !set_ids(own_uid(), own_gid())))
		abort();
	errno = saved;
}
