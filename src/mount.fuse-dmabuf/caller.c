/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <unistd.h>

#include "caller.h"

/* The umask belongs to the process, until a thread asks for its own. */
static bool own_umask(void)
{
	static _Thread_local bool done;

	if (!done)
		done = !unshare(CLONE_FS);
	return done;
}

/* The calls report no failure; asking for an impossible id tells the present one. */
static bool set_ids(uid_t uid, gid_t gid)
{
	setfsgid(gid);
	setfsuid(uid);
	return setfsgid((gid_t)-1) == (int)gid && setfsuid((uid_t)-1) == (int)uid;
}

bool caller_begin(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	if (!own_umask())
		return false;
	umask(ctx->umask);
	if (set_ids(ctx->uid, ctx->gid))
		return true;
	caller_end();
	errno = EPERM;
	return false;
}

void caller_end(void)
{
	int saved = errno;

	/* Back to what a thread of root starts with. */
	if (!set_ids(0, 0))
		abort();
	errno = saved;
}

bool caller_in_group(fuse_req_t req, gid_t gid)
{
	gid_t groups[1024];
	int count;

	if (fuse_req_ctx(req)->gid == gid)
		return true;
	count = fuse_req_getgroups(req, 1024, groups);
	for (int i = 0; i < count && i < 1024; i++) {
		if (groups[i] == gid)
			return true;
	}
	return false;
}
