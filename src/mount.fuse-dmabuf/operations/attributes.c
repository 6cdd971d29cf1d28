/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers requests that read and change attributes, read symbolic links, and ask for statfs(2). */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "broker/broker.h"
#include "identity/caller.h"
#include "operations/cache.h"
#include "operations/file.h"
#include "operations/operations.h"
#include "operations/reply.h"

static void reply_attr(fuse_req_t req, const struct inode *inode)
{
	struct stat attr;

	if (fstat(inode->fd, &attr))
		fuse_reply_err(req, errno);
	else
		fuse_reply_attr(req, &attr,
				cache_attribute_seconds(&attr, has_file_capabilities(inode->fd)));
}

void op_getattr(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *info)
{
	struct inode *inode = use_node(req, nodeid);

	(void)info;
	if (!inode)
		return;
	reply_attr(req, inode);
	inode_end_use(inode);
}

static int set_mode(const struct inode *inode, mode_t mode)
{
	char path[INODE_PATH_MAX];

	return chmod(inode_path(inode, path), mode);
}

static int set_owner(const struct inode *inode, const struct stat *attr, int which)
{
	uid_t uid = which & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1;
	gid_t gid = which & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1;

	return fchownat(inode->fd, "", uid, gid, AT_EMPTY_PATH);
}

/*
 * Truncates to nothing with O_TRUNC. A program's open with O_TRUNC arrives as SETATTR, too, and
 * must clear the set-ID bits even of an empty file; on XFS truncate() changes nothing of an empty
 * file.
 */
static int truncate_to_nothing(const struct inode *inode)
{
	int fd = reopen(inode->fd, O_WRONLY | O_TRUNC);

	return fd < 0 ? -1 : close(fd);
}

static int set_size(const struct inode *inode, off_t size, const struct fuse_file_info *info)
{
	char path[INODE_PATH_MAX];

	if (info)
		return ftruncate(file_fd(file_from_info(info)), size);
	return size ? truncate(inode_path(inode, path), size) : truncate_to_nothing(inode);
}

static struct timespec time_to_set(int which, int set, int set_now, struct timespec value)
{
	if (which & set_now)
		return (struct timespec){ .tv_nsec = UTIME_NOW };
	if (which & set)
		return value;
	return (struct timespec){ .tv_nsec = UTIME_OMIT };
}

static int set_times(const struct inode *inode, const struct stat *attr, int which)
{
	struct timespec times[] = {
		time_to_set(which, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, attr->st_atim),
		time_to_set(which, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, attr->st_mtim),
	};

	return utimensat(inode->fd, "", times, AT_EMPTY_PATH);
}

/*
 * Sets the owner before the mode, because chown() clears set-user-ID bits, and the times last,
 * because truncating sets them.
 */
static int set_attributes(const struct inode *inode, const struct stat *attr, int which,
			  const struct fuse_file_info *info)
{
	if (which & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID) && set_owner(inode, attr, which))
		return -1;
	if (which & FUSE_SET_ATTR_MODE && set_mode(inode, attr->st_mode))
		return -1;
	if (which & FUSE_SET_ATTR_SIZE && set_size(inode, attr->st_size, info))
		return -1;
	if (which & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME) && set_times(inode, attr, which))
		return -1;
	return 0;
}

/*
 * Returns true if the change may clear a set-group-ID bit that CAP_FSETID would keep. The change
 * succeeds without that capability, so no error tells the server to retry with it.
 */
static bool needs_capabilities(const struct stat *attr, int which)
{
	return which & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID) ||
	       (which & FUSE_SET_ATTR_MODE && attr->st_mode & S_ISGID);
}

static bool begin_as_caller(struct caller *caller, fuse_req_t req, const struct target *target,
			    const struct stat *attr, int which)
{
	if (which & FUSE_SET_ATTR_SIZE)
		return caller_begin_to_write(caller, req, target);
	return needs_capabilities(attr, which) ? caller_begin_with_all(caller, req, target, 1) :
						 caller_begin(caller, req, target, 1);
}

/* Returns an errno, or 0. */
static int set_as_caller(fuse_req_t req, const struct inode *inode, const struct stat *attr,
			 int which, const struct fuse_file_info *info)
{
	const struct target target = { TARGET_FILE, inode->fd, NULL };
	struct caller caller;
	int error;

	if (!begin_as_caller(&caller, req, &target, attr, which))
		return errno;
	do {
		error = set_attributes(inode, attr, which, info) ? errno : 0;
	} while (caller_should_retry(&caller, error));
	return error;
}

void op_setattr(fuse_req_t req, fuse_ino_t nodeid, struct stat *attr, int which,
		struct fuse_file_info *info)
{
	struct inode *inode = use_node(req, nodeid);
	int error;

	if (!inode)
		return;
	error = set_as_caller(req, inode, attr, which, info);
	if (which & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		broker_recheck_file(inode);
	if (error)
		fuse_reply_err(req, error);
	else
		reply_attr(req, inode);
	inode_end_use(inode);
}

static void reply_target(fuse_req_t req, const struct inode *inode)
{
	char target[PATH_MAX];
	ssize_t length = readlinkat(inode->fd, "", target, sizeof(target));

	if (length < 0) {
		fuse_reply_err(req, errno);
	} else if (length == sizeof(target)) {
		fuse_reply_err(req, ENAMETOOLONG);
	} else {
		target[length] = '\0';
		fuse_reply_readlink(req, target);
	}
}

void op_readlink(fuse_req_t req, fuse_ino_t nodeid)
{
	struct inode *inode = use_node(req, nodeid);

	if (!inode)
		return;
	reply_target(req, inode);
	inode_end_use(inode);
}

void op_statfs(fuse_req_t req, fuse_ino_t nodeid)
{
	struct inode *inode = use_node(req, nodeid);
	struct statvfs status;

	if (!inode)
		return;
	if (fstatvfs(inode->fd, &status))
		fuse_reply_err(req, errno);
	else
		fuse_reply_statfs(req, &status);
	inode_end_use(inode);
}
