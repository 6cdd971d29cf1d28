/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Answers requests about extended attributes, POSIX ACLs among them. The system calls get the path
 * /proc/self/fd/N: that link leads to the node itself, even if the node is a symbolic link.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "broker/broker.h"
#include "identity/caller.h"
#include "identity/identity.h"
#include "operations/operations.h"
#include "operations/reply.h"

#define ACL_PREFIX        "system.posix_acl_"
#define ACL_ACCESS        ACL_PREFIX "access"
#define FILE_CAPABILITIES "security.capability"
#define TRUSTED_PREFIX    "trusted."

static bool is_acl(const char *name)
{
	return !strncmp(name, ACL_PREFIX, strlen(ACL_PREFIX));
}

/*
 * Answers with a value or list of @length bytes, or only with its length if the program asks with
 * @size 0. A negative @length is the result of a failed call: errno is the answer.
 */
static void reply_bytes(fuse_req_t req, const char *bytes, ssize_t length, size_t size)
{
	if (length < 0)
		fuse_reply_err(req, errno);
	else if (!size)
		fuse_reply_xattr(req, (size_t)length);
	else if ((size_t)length > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, bytes, (size_t)length);
}

static void reply_value(fuse_req_t req, const struct inode *inode, const char *name, size_t size)
{
	char path[INODE_PATH_MAX];
	char *value = NULL;
	ssize_t length;

	inode_path(inode, path);
	if (size > XATTR_SIZE_MAX)
		size = XATTR_SIZE_MAX;
	if (size && !(value = malloc(size))) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	length = getxattr(path, name, value, size);
	/*
	 * On a file system without ACLs the file has no ACL. The kernel asks before it lets anybody
	 * but the owner open a file, and takes EOPNOTSUPP as an error: the open would fail.
	 */
	if (length < 0 && errno == EOPNOTSUPP && is_acl(name))
		errno = ENODATA;
	reply_bytes(req, value, length, size);
	free(value);
}

void op_getxattr(fuse_req_t req, fuse_ino_t nodeid, const char *name, size_t size)
{
	struct inode *inode = use_node(req, nodeid);

	if (!inode)
		return;
	reply_value(req, inode, name, size);
	inode_end_use(inode);
}

static size_t count_trusted(const char *list, ssize_t length)
{
	size_t count = 0;

	for (const char *name = list; name < list + length; name += strlen(name) + 1)
		count += !strncmp(name, TRUSTED_PREFIX, strlen(TRUSTED_PREFIX));
	return count;
}

/*
 * Removes the names that only an administrator may see: the server itself sees them all. Returns
 * the new length.
 */
static ssize_t remove_trusted(char *list, ssize_t length)
{
	char *from = list, *to = list;
	size_t size;

	for (; from < list + length; from += size) {
		size = strlen(from) + 1;
		if (!strncmp(from, TRUSTED_PREFIX, strlen(TRUSTED_PREFIX)))
			continue;
		memmove(to, from, size);
		to += size;
	}
	return to - list;
}

static void reply_list(fuse_req_t req, const struct inode *inode, size_t size)
{
	char path[INODE_PATH_MAX];
	char *list = malloc(XATTR_LIST_MAX);
	ssize_t length;

	if (!list) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	length = listxattr(inode_path(inode, path), list, XATTR_LIST_MAX);
	if (length > 0 && count_trusted(list, length) &&
	    !caller_is_capable(req, CAPABILITY(CAP_SYS_ADMIN)))
		length = remove_trusted(list, length);
	reply_bytes(req, list, length, size);
	free(list);
}

void op_listxattr(fuse_req_t req, fuse_ino_t nodeid, size_t size)
{
	struct inode *inode = use_node(req, nodeid);

	if (!inode)
		return;
	reply_list(req, inode, size);
	inode_end_use(inode);
}

/* Returns an errno, or 0. */
static int set_as_caller(fuse_req_t req, const struct inode *inode, const char *name,
			 const char *value, size_t size, int flags)
{
	const struct target target = { TARGET_FILE, inode->fd, NULL };
	char path[INODE_PATH_MAX];
	struct caller caller;
	int error;

	/* Without CAP_FSETID setting an ACL can clear a set-group-ID bit, and still succeeds. */
	if (!(is_acl(name) ? caller_begin_with_all(&caller, req, &target, 1) :
			     caller_begin(&caller, req, &target, 1)))
		return errno;
	inode_path(inode, path);
	do {
		error = setxattr(path, name, value, size, flags) ? errno : 0;
	} while (caller_should_retry(&caller, error));
	return error;
}

void op_setxattr(fuse_req_t req, fuse_ino_t nodeid, const char *name, const char *value,
		 size_t size, int flags)
{
	struct inode *inode = use_node(req, nodeid);
	int error;

	if (!inode)
		return;
	error = set_as_caller(req, inode, name, value, size, flags);
	if (!error && !strcmp(name, ACL_ACCESS))
		broker_recheck_file(inode);
	fuse_reply_err(req, error);
	inode_end_use(inode);
}

/* Returns an errno, or 0. */
static int remove_as_caller(fuse_req_t req, const struct inode *inode, const char *name)
{
	const struct target target = { TARGET_FILE, inode->fd, NULL };
	char path[INODE_PATH_MAX];
	struct caller caller;
	int error;

	if (!caller_begin(&caller, req, &target, 1))
		return errno;
	inode_path(inode, path);
	do {
		error = removexattr(path, name) ? errno : 0;
	} while (caller_should_retry(&caller, error));
	return error;
}

/*
 * Returns true if the kernel asks to remove file capabilities because a write follows. It asks so
 * for every writer; the source's file system removes them at the write itself. A removexattr(2) by
 * a program without CAP_SETFCAP does not reach the server, except by root of a container if the
 * kernel remembers root of the container as the owner of the file.
 */
static bool is_before_write(fuse_req_t req, const char *name)
{
	return !strcmp(name, FILE_CAPABILITIES) && !caller_is_capable(req, CAPABILITY(CAP_SETFCAP));
}

void op_removexattr(fuse_req_t req, fuse_ino_t nodeid, const char *name)
{
	struct inode *inode = use_node(req, nodeid);
	int error;

	if (!inode)
		return;
	error = remove_as_caller(req, inode, name);
	if (error == EPERM && is_before_write(req, name))
		error = 0;
	else if (!error && !strcmp(name, ACL_ACCESS))
		broker_recheck_file(inode);
	fuse_reply_err(req, error);
	inode_end_use(inode);
}
