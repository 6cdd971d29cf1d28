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
	if (!*capabilities || user_namespace_is_own(pid))
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

static bool assume(const struct caller *caller)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(caller->req);

	return identity_assume(&(struct identity){
		.uid = ctx->uid, .gid = ctx->gid, .groups = caller->process.groups,
		.group_count = caller->process.group_count, .capabilities = caller->capabilities });
}

static bool take_capabilities(struct caller *caller, uint64_t elsewhere)
{
	caller->has_all = true;
	return !caller->is_known ||
	       read_capabilities(&caller->process, fuse_req_ctx(caller->req)->pid, elsewhere, caller->targets,
				 caller->count, &caller->capabilities);
}

static bool read_known(struct caller *caller)
{
	caller->is_known = read_caller(fuse_req_ctx(caller->req), &caller->process);
	caller->has_all = !caller->is_known || !(caller->process.capabilities & PRIVILEGES_OF_CALLERS);
	return caller->is_known || errno == ESRCH;
}

static void set_caller(struct caller *caller, fuse_req_t req, const struct target *targets, size_t count)
{
	caller->req = req;
	caller->targets = targets;
	caller->count = count;
	caller->capabilities = 0;
	process_clear(&caller->process);
}

static bool begin_with(struct caller *caller, uint64_t elsewhere)
{
	if (read_known(caller) && take_capabilities(caller, elsewhere) && assume(caller))
		return true;
	process_free(&caller->process);
	return false;
}

bool caller_begin(struct caller *caller, fuse_req_t req, const struct target *targets, size_t count)
{
	set_caller(caller, req, targets, count);
	if (read_known(caller) && assume(caller))
		return true;
	process_free(&caller->process);
	return false;
}

bool caller_begin_with_all(struct caller *caller, fuse_req_t req, const struct target *targets, size_t count)
{
	set_caller(caller, req, targets, count);
	return begin_with(caller, CAPABILITIES_FOR_FILES);
}

bool caller_begin_to_write(struct caller *caller, fuse_req_t req, const struct target *target)
{
	set_caller(caller, req, target, 1);
	return begin_with(caller, CAPABILITIES_FOR_FILES & ~CAPABILITY(CAP_FSETID));
}

/* Rights, and space that is kept for who has CAP_SYS_RESOURCE. */
static bool is_refusal(int error)
{
	return error == EPERM || error == EACCES || error == ENOSPC || error == EDQUOT;
}

bool caller_goes_on(struct caller *caller, int error)
{
	int saved = errno;
	bool goes_on;

	identity_end();
	goes_on = is_refusal(error) && !caller->has_all && take_capabilities(caller, CAPABILITIES_FOR_FILES) &&
		  caller->capabilities && assume(caller);
	if (!goes_on)
		process_free(&caller->process);
	errno = saved;
	return goes_on;
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

/* A set-group-ID bit that CAP_FSETID would keep is lost without a word. */
bool caller_begin_to_create(struct caller *caller, fuse_req_t req, const struct target *directory, mode_t mode)
{
	if (!own_umask())
		return false;
	set_umask(fuse_req_ctx(req)->umask);
	return mode & S_ISGID ? caller_begin_with_all(caller, req, directory, 1) : caller_begin(caller, req, directory, 1);
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
