/* SPDX-License-Identifier: GPL-2.0-or-later */
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

/* Those that count in another user namespace, for the files whose owner and group have ids there. */
#define CAPABILITIES_FOR_FILES \
	(CAPABILITY(CAP_CHOWN) | CAPABILITY(CAP_DAC_OVERRIDE) | CAPABILITY(CAP_DAC_READ_SEARCH) | \
	 CAPABILITY(CAP_FOWNER) | CAPABILITY(CAP_FSETID) | CAPABILITY(CAP_SETFCAP))

/* What the names of a directory can be changed with; FOWNER counts for what has the name, not for the directory. */
#define FOR_NAMES (PRIVILEGES_OF_ACCESS | CAPABILITY(CAP_FOWNER))

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

static bool assume_with(const struct caller *caller, uint64_t capabilities)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(caller->req);

	return identity_assume(&(struct identity){
		.uid = ctx->uid, .gid = ctx->gid, .groups = caller->process.groups,
		.group_count = caller->process.group_count, .capabilities = capabilities });
}

/* Whether the caller could write there without any capability, so that they make no difference to it. */
static bool may_without(const struct caller *caller, const struct target *target, int mode)
{
	bool may;

	if (!assume_with(caller, 0))
		return false;
	may = !faccessat(target->fd, target->name ? target->name : "", mode,
			 AT_EACCESS | (target->name ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH));
	identity_end();
	return may;
}

/*
 * Which of these capabilities count for a target that the namespace has no ids for: those that make no difference to
 * it. Who may remove a name depends on what has it (sticky directories), and a directory that is moved is written to.
 */
static uint64_t counting_for_stranger(const struct caller *caller, const struct target *target, const struct stat *attr,
				      uint64_t capabilities)
{
	switch (target->kind) {
	case TARGET_DIRECTORY:
		return capabilities & (may_without(caller, target, W_OK | X_OK) ? FOR_NAMES : CAPABILITY(CAP_FOWNER));
	case TARGET_NAME:
		return !S_ISDIR(attr->st_mode) || may_without(caller, target, W_OK) ? capabilities & PRIVILEGES_OF_ACCESS : 0;
	default:
		return 0;
	}
}

static uint64_t counting_for(const struct caller *caller, const struct user_namespace *user_namespace,
			     const struct target *target, uint64_t capabilities)
{
	struct stat attr;
	bool maps_user;

	if (target->name ? fstatat(target->fd, target->name, &attr, AT_SYMLINK_NOFOLLOW) : fstat(target->fd, &attr))
		return target->name && errno == ENOENT ? capabilities : 0;
	maps_user = user_namespace_maps_user(user_namespace, attr.st_uid);
	if (maps_user && user_namespace_maps_group(user_namespace, attr.st_gid))
		return capabilities;
	/* What only the owner may do with a file asks for no group. */
	if (maps_user && target->kind == TARGET_FILE)
		return capabilities & CAPABILITY(CAP_FOWNER);
	return counting_for_stranger(caller, target, &attr, capabilities);
}

/* elsewhere: what counts in another user namespace. False: see errno. */
static bool take_capabilities(struct caller *caller, uint64_t elsewhere)
{
	pid_t pid = fuse_req_ctx(caller->req)->pid;
	struct user_namespace user_namespace;

	caller->has_all = true;
	caller->capabilities = caller->process.capabilities & PRIVILEGES_OF_CALLERS;
	if (!caller->capabilities || user_namespace_is_own(pid))
		return true;
	caller->capabilities &= elsewhere;
	if (!caller->capabilities)
		return true;
	if (!user_namespace_read(pid, &user_namespace))
		return false;
	for (size_t i = 0; i < caller->count; i++)
		caller->capabilities &= counting_for(caller, &user_namespace, &caller->targets[i], caller->capabilities);
	return true;
}

static bool read_known(struct caller *caller)
{
	bool known = read_caller(fuse_req_ctx(caller->req), &caller->process);

	/* Also what was read before it turned out to be incomplete. */
	if (!known)
		process_clear(&caller->process);
	caller->has_all = !(caller->process.capabilities & PRIVILEGES_OF_CALLERS);
	return known || errno == ESRCH;
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
	if (read_known(caller) && take_capabilities(caller, elsewhere) && assume_with(caller, caller->capabilities))
		return true;
	process_free(&caller->process);
	return false;
}

bool caller_begin(struct caller *caller, fuse_req_t req, const struct target *targets, size_t count)
{
	set_caller(caller, req, targets, count);
	if (read_known(caller) && assume_with(caller, caller->capabilities))
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

bool caller_should_retry(struct caller *caller, int error)
{
	int saved = errno;
	bool goes_on;

	identity_end();
	goes_on = is_refusal(error) && !caller->has_all && take_capabilities(caller, CAPABILITIES_FOR_FILES) &&
		  caller->capabilities && assume_with(caller, caller->capabilities);
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

bool caller_is_capable(fuse_req_t req, uint64_t capability)
{
	struct caller caller;
	bool capable;

	set_caller(&caller, req, NULL, 0);
	capable = read_known(&caller) && take_capabilities(&caller, 0) && caller.capabilities & capability;
	process_free(&caller.process);
	return capable;
}
