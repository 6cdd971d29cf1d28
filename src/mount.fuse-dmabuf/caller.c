/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "caller.h"
#include "identity.h"
#include "log.h"
#include "privileges.h"
#include "processes.h"

/* Those that count in another user namespace, for the files whose owner and group have ids there. */
#define CAPABILITIES_FOR_FILES \
	(CAPABILITY(CAP_CHOWN) | CAPABILITY(CAP_DAC_OVERRIDE) | CAPABILITY(CAP_DAC_READ_SEARCH) | \
	 CAPABILITY(CAP_FOWNER) | CAPABILITY(CAP_FSETID) | CAPABILITY(CAP_SETFCAP))

static void explain_unknown(const struct fuse_ctx *ctx, const char *reason)
{
	static atomic_llong next;

	if (log_is_due(&next))
		log_warning("a caller's groups and capabilities are not known, uid %u acts without them: pid %d: %s", ctx->uid,
			    ctx->pid, reason);
}

/*
 * A thread waits for its answer while it is looked at, so the number is still its own. One that acts for another (as
 * overlayfs does for who mounted it, and io_uring with a personality) has other ids than it asks with. False: see
 * errno; ESRCH: the credentials are not known.
 */
static bool read_caller(const struct fuse_ctx *ctx, struct process *process)
{
	const char *reason = "it acts for another";

	if (ctx->pid && process_read(ctx->pid, process)) {
		if (process->fsuid == ctx->uid && process->fsgid == ctx->gid)
			return true;
		process_free(process);
	} else if (!ctx->pid) {
		reason = "it is in a PID namespace that the server does not see";
	} else if (errno == ENOENT || errno == ESRCH) {
		reason = "there is no such process";
	} else {
		return false;
	}
	explain_unknown(ctx, reason);
	errno = ESRCH;
	return false;
}

/* Which of these capabilities count for a target; what is not there is nobody's. */
static uint64_t counting_for(const struct user_namespace *user_namespace, const struct target *target,
			     uint64_t capabilities)
{
	struct stat attr;

	if (target->name ? fstatat(target->fd, target->name, &attr, AT_SYMLINK_NOFOLLOW) : fstat(target->fd, &attr))
		return target->name && errno == ENOENT ? capabilities : 0;
	if (!user_namespace_maps_user(user_namespace, attr.st_uid))
		return 0;
	if (user_namespace_maps_group(user_namespace, attr.st_gid))
		return capabilities;
	/* What only the owner may do asks for no group; the names in a sticky directory do. */
	return target->name ? 0 : capabilities & CAPABILITY(CAP_FOWNER);
}

/* elsewhere: what counts in another user namespace. False: see errno. */
static bool read_capabilities(const struct process *process, pid_t pid, uint64_t elsewhere,
			      const struct target *targets, size_t count, uint64_t *capabilities)
{
	struct user_namespace user_namespace;

	*capabilities = process->capabilities & PRIVILEGES_OF_CALLERS;
	if (!*capabilities)
		return true;
	if (user_namespace_is_own(pid))
		return true;
	*capabilities &= elsewhere;
	if (!*capabilities)
		return true;
	if (!user_namespace_read(pid, &user_namespace))
		return false;
	for (size_t i = 0; i < count; i++)
		*capabilities &= counting_for(&user_namespace, &targets[i], *capabilities);
	return true;
}

static bool assume_known(const struct process *process, const struct fuse_ctx *ctx, uint64_t elsewhere,
			 const struct target *targets, size_t count)
{
	struct identity identity = {
		.uid = ctx->uid, .gid = ctx->gid, .groups = process->groups, .group_count = process->group_count,
	};

	return read_capabilities(process, ctx->pid, elsewhere, targets, count, &identity.capabilities) &&
	       identity_assume(&identity);
}

static bool assume(fuse_req_t req, uint64_t elsewhere, const struct target *targets, size_t count)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct process process;
	bool assumed;

	if (!read_caller(ctx, &process))
		return errno == ESRCH && identity_assume(&(struct identity){ .uid = ctx->uid, .gid = ctx->gid });
	assumed = assume_known(&process, ctx, elsewhere, targets, count);
	process_free(&process);
	return assumed;
}

bool caller_assume(fuse_req_t req, const struct target *targets, size_t count)
{
	return assume(req, CAPABILITIES_FOR_FILES, targets, count);
}

bool caller_assume_to_write(fuse_req_t req, int fd)
{
	return assume(req, CAPABILITIES_FOR_FILES & ~CAPABILITY(CAP_FSETID), TARGETS({ fd, NULL }));
}

/* The umask belongs to the process, until a thread asks for its own. */
static bool own_umask(void)
{
	static _Thread_local bool done;

	if (!done)
		done = !unshare(CLONE_FS);
	return done;
}

/* Of this thread; it keeps that of the last caller. */
static void set_umask(mode_t mask)
{
	static _Thread_local mode_t present = (mode_t)-1;

	if (mask != present)
		umask(mask);
	present = mask;
}

bool caller_assume_to_create(fuse_req_t req, const struct target *targets, size_t count)
{
	if (!own_umask())
		return false;
	set_umask(fuse_req_ctx(req)->umask);
	return caller_assume(req, targets, count);
}

bool caller_has(fuse_req_t req, uint64_t capability)
{
	struct process process;
	bool has;

	if (!read_caller(fuse_req_ctx(req), &process))
		return false;
	has = process.capabilities & capability;
	process_free(&process);
	return has;
}

bool caller_is_capable(fuse_req_t req, uint64_t capability)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	uint64_t capabilities = 0;
	struct process process;
	bool capable;

	if (!read_caller(ctx, &process))
		return false;
	capable = read_capabilities(&process, ctx->pid, 0, NULL, 0, &capabilities) && capabilities & capability;
	process_free(&process);
	return capable;
}
