/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "caller.h"
#include "owner.h"

/* The umask belongs to the process, until a thread asks for its own. */
static bool own_umask(void)
{
	static _Thread_local bool done;

	if (!done)
		done = !unshare(CLONE_FS);
	return done;
}

/*
 * The effective ids, and with them those of the file system: unlike setfsuid() it says whether it failed. Of this
 * thread alone, where glibc's functions would change all threads.
 */
static bool set_ids(uid_t uid, gid_t gid)
{
	return !syscall(SYS_setresgid, -1, gid, -1) && !syscall(SYS_setresuid, -1, uid, -1);
}

void ids_reset(void)
{
	int saved = errno;

	if (!set_ids(0, 0))
		abort();
	errno = saved;
}

bool ids_set(uid_t uid, gid_t gid)
{
	if (set_ids(uid, gid))
		return true;
	ids_reset();
	return false;
}

/* Of this thread; it keeps that of the last caller. */
static void set_umask(mode_t mask)
{
	static _Thread_local mode_t present = (mode_t)-1;

	if (mask != present)
		umask(mask);
	present = mask;
}

/* A thread that serves has them. */
static bool is_root(const struct fuse_ctx *ctx)
{
	return !ctx->uid && !ctx->gid;
}

bool caller_begin(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	if (!own_umask())
		return false;
	set_umask(ctx->umask);
	if (is_root(ctx) || ids_set(ctx->uid, ctx->gid))
		return true;
	errno = EPERM;
	return false;
}

void caller_end(fuse_req_t req)
{
	if (!is_root(fuse_req_ctx(req)))
		ids_reset();
}

bool caller_in_group(fuse_req_t req, gid_t gid)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct owner caller = { .gid = ctx->gid };
	bool in = owner_in_group(&caller, gid) ||
		  (owner_read_groups(&caller, ctx->pid) && owner_in_group(&caller, gid));

	owner_free(&caller);
	return in;
}
