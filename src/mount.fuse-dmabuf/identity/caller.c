/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Acting as the caller of a request: which credentials the thread takes, and which capabilities
 * count.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "identity/caller.h"
#include "identity/identity.h"
#include "identity/privileges.h"
#include "identity/processes.h"
#include "log/log.h"

/*
 * Capabilities that count also if they belong to another user namespace than the server's, for
 * files whose owner and group have ids in that namespace.
 */
#define CAPABILITIES_FOR_FILES \
	(CAPABILITY(CAP_CHOWN) | CAPABILITY(CAP_DAC_OVERRIDE) | CAPABILITY(CAP_DAC_READ_SEARCH) | \
	 CAPABILITY(CAP_FOWNER) | CAPABILITY(CAP_FSETID) | CAPABILITY(CAP_SETFCAP))

/*
 * Capabilities with which the names of a directory can be changed. CAP_FOWNER counts for the file
 * that has the name, not for the directory.
 */
#define CAPABILITIES_FOR_NAMES (PRIVILEGES_OF_ACCESS | CAPABILITY(CAP_FOWNER))

static void explain_unknown(const struct fuse_ctx *ctx, const char *reason)
{
	static atomic_llong next;

	if (log_is_due(&next))
		log_warning("a caller's groups and capabilities are not known, "
			    "uid %u acts without them: pid %d: %s", ctx->uid, ctx->pid, reason);
}

/*
 * Reads the credentials of the thread that sent the request. The thread waits for the answer, so
 * its pid cannot belong to another thread yet. A thread that acts for another process (overlayfs
 * acts for the user who mounted it, io_uring for a personality) has other ids than its request.
 * Returns false with errno set on failure: ESRCH if the credentials are not known.
 */
static bool read_credentials(const struct fuse_ctx *ctx, struct process *process)
{
	const char *reason = "it acts with ids that are not its own";

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

static bool assume_caller(const struct caller *caller, uint64_t capabilities)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(caller->req);

	return identity_assume(&(struct identity){
		.uid = ctx->uid, .gid = ctx->gid, .groups = caller->process.groups,
		.group_count = caller->process.group_count, .capabilities = capabilities });
}

/*
 * Returns true if the caller may access the target without any capability: capabilities then make
 * no difference to the target.
 */
static bool may_without_capabilities(const struct caller *caller, const struct target *target,
				     int mode)
{
	bool may;

	if (!assume_caller(caller, 0))
		return false;
	may = !faccessat(target->fd, target->name ? target->name : "", mode,
			 AT_EACCESS | (target->name ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH));
	identity_end();
	return may;
}

/*
 * Returns those of @capabilities that a thread may have while it changes a target whose owner or
 * group has no id in the caller's namespace: those that make no difference to the target. In a
 * sticky directory the file that has a name decides who may remove the name, and moving a directory
 * writes to it.
 */
static uint64_t capabilities_for_unmapped(const struct caller *caller, const struct target *target,
					  const struct stat *attr, uint64_t capabilities)
{
	switch (target->kind) {
	case TARGET_DIRECTORY:
		return capabilities & (may_without_capabilities(caller, target, W_OK | X_OK) ?
				       CAPABILITIES_FOR_NAMES : CAPABILITY(CAP_FOWNER));
	case TARGET_NAME:
		return !S_ISDIR(attr->st_mode) || may_without_capabilities(caller, target, W_OK) ?
		       capabilities & PRIVILEGES_OF_ACCESS : 0;
	default:
		return 0;
	}
}

/* Returns those of @capabilities, which belong to @user_namespace, that count for the target. */
static uint64_t capabilities_for(const struct caller *caller,
				 const struct user_namespace *user_namespace,
				 const struct target *target, uint64_t capabilities)
{
	struct stat attr;
	bool maps_user;

	if (target->name ? fstatat(target->fd, target->name, &attr, AT_SYMLINK_NOFOLLOW) :
			   fstat(target->fd, &attr))
		return target->name && errno == ENOENT ? capabilities : 0;
	maps_user = user_namespace_maps_user(user_namespace, attr.st_uid);
	if (maps_user && user_namespace_maps_group(user_namespace, attr.st_gid))
		return capabilities;
	/* For operations that only the owner of a file may do, the kernel ignores the group. */
	if (maps_user && target->kind == TARGET_FILE)
		return capabilities & CAPABILITY(CAP_FOWNER);
	return capabilities_for_unmapped(caller, target, &attr, capabilities);
}

/*
 * Sets the capabilities that count for the targets. Of a caller in another user namespace, only
 * those in @foreign_mask may count. Returns false with errno set if the namespace cannot be read.
 */
static bool take_capabilities(struct caller *caller, uint64_t foreign_mask)
{
	pid_t pid = fuse_req_ctx(caller->req)->pid;
	struct user_namespace user_namespace;

	caller->has_all = true;
	caller->capabilities = caller->process.capabilities & PRIVILEGES_OF_CALLERS;
	if (!caller->capabilities || user_namespace_is_own(pid))
		return true;
	caller->capabilities &= foreign_mask;
	if (!caller->capabilities)
		return true;
	if (!user_namespace_read(pid, &user_namespace))
		return false;
	for (size_t i = 0; i < caller->count; i++)
		caller->capabilities &= capabilities_for(caller, &user_namespace,
							 &caller->targets[i],
							 caller->capabilities);
	return true;
}

/*
 * Reads the caller's credentials, which are empty if they are not known. Returns false with errno
 * set on another failure.
 */
static bool read_known_credentials(struct caller *caller)
{
	bool known = read_credentials(fuse_req_ctx(caller->req), &caller->process);

	/* Incomplete credentials count for nothing. */
	if (!known)
		process_clear(&caller->process);
	caller->has_all = !(caller->process.capabilities & PRIVILEGES_OF_CALLERS);
	return known || errno == ESRCH;
}

static void set_caller(struct caller *caller, fuse_req_t req, const struct target *targets,
		       size_t count)
{
	caller->req = req;
	caller->targets = targets;
	caller->count = count;
	caller->capabilities = 0;
	process_clear(&caller->process);
}

/* Begins with the capabilities that count for the targets, as take_capabilities() does. */
static bool begin_with_capabilities(struct caller *caller, uint64_t foreign_mask)
{
	if (read_known_credentials(caller) && take_capabilities(caller, foreign_mask) &&
	    assume_caller(caller, caller->capabilities))
		return true;
	process_free(&caller->process);
	return false;
}

bool caller_begin(struct caller *caller, fuse_req_t req, const struct target *targets,
		  size_t count)
{
	set_caller(caller, req, targets, count);
	if (read_known_credentials(caller) && assume_caller(caller, caller->capabilities))
		return true;
	process_free(&caller->process);
	return false;
}

bool caller_begin_with_all(struct caller *caller, fuse_req_t req, const struct target *targets,
			   size_t count)
{
	set_caller(caller, req, targets, count);
	return begin_with_capabilities(caller, CAPABILITIES_FOR_FILES);
}

bool caller_begin_to_write(struct caller *caller, fuse_req_t req, const struct target *target)
{
	set_caller(caller, req, target, 1);
	return begin_with_capabilities(caller, CAPABILITIES_FOR_FILES & ~CAPABILITY(CAP_FSETID));
}

/*
 * Returns true if capabilities may help: for want of rights, or of space that is reserved for
 * callers with CAP_SYS_RESOURCE.
 */
static bool is_refusal(int error)
{
	return error == EPERM || error == EACCES || error == ENOSPC || error == EDQUOT;
}

bool caller_should_retry(struct caller *caller, int error)
{
	int saved = errno;
	bool retry;

	identity_end();
	retry = is_refusal(error) && !caller->has_all &&
		take_capabilities(caller, CAPABILITIES_FOR_FILES) && caller->capabilities &&
		assume_caller(caller, caller->capabilities);
	if (!retry)
		process_free(&caller->process);
	errno = saved;
	return retry;
}

/* Gives the thread an umask of its own. Until then all threads share that of the process. */
static bool separate_umask(void)
{
	static _Thread_local bool done;

	if (!done)
		done = !unshare(CLONE_FS);
	return done;
}

/* Sets the umask of the thread, which keeps the umask of its last caller. */
static void set_umask(mode_t mask)
{
	static _Thread_local mode_t current = (mode_t)-1;

	if (mask != current)
		umask(mask);
	current = mask;
}

/*
 * With a set-group-ID bit, the caller's capabilities are needed at the first try: without
 * CAP_FSETID the bit is lost, and no error says so.
 */
bool caller_begin_to_create(struct caller *caller, fuse_req_t req, const struct target *directory,
			    mode_t mode)
{
	if (!separate_umask())
		return false;
	set_umask(fuse_req_ctx(req)->umask);
	return mode & S_ISGID ? caller_begin_with_all(caller, req, directory, 1) :
				caller_begin(caller, req, directory, 1);
}

bool caller_is_capable(fuse_req_t req, uint64_t capability)
{
	struct caller caller;
	bool capable;

	set_caller(&caller, req, NULL, 0);
	capable = read_known_credentials(&caller) && take_capabilities(&caller, 0) &&
		  caller.capabilities & capability;
	process_free(&caller.process);
	return capable;
}
