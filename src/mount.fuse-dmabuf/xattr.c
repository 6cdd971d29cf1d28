/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes, POSIX ACLs among them. The calls go to /proc/self/fd/N: that link leads to the node
 * itself, also where the node is a symbolic link.
 */
#include <errno.h>
#include <linux/limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "broker.h"
#include "caller.h"
#include "operations.h"

#define ACL        "system.posix_acl_"
#define ACL_ACCESS ACL "access"
#define TRUSTED    "trusted."

/* Answers with a value or list of that length, or, asked with size 0, with the length. */
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
	/* The kernel asks before it lets anybody but the owner open a file: no support for ACLs is no ACL. */
	if (length < 0 && errno == EOPNOTSUPP && !strncmp(name, ACL, strlen(ACL)))
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

/* The server sees names that only an administrator may see. */
static ssize_t remove_trusted(char *list, ssize_t length)
{
	char *from = list, *to = list;
	size_t size;

	for (; from < list + length; from += size) {
		size = strlen(from) + 1;
		if (!strncmp(from, TRUSTED, strlen(TRUSTED)))
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
	if (length > 0 && fuse_req_ctx(req)->uid)
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

/*
 * Setting an ACL takes the set-group-ID bit from a file whose group the caller is not in. The backing
 * filesystem does not do it for the server, who may set any bit. A chmod in the source between the two calls is
 * lost: none takes one bit away.
 */
static int drop_setgid(fuse_req_t req, const char *path)
{
	struct stat attr;

	if (stat(path, &attr))
		return -1;
	if (!(attr.st_mode & S_ISGID) || !fuse_req_ctx(req)->uid || caller_in_group(req, attr.st_gid))
		return 0;
	return chmod(path, attr.st_mode & ~(mode_t)S_ISGID);
}

/* Without losing what the system call said. */
static void recheck_tokens(struct inode *inode)
{
	int saved = errno;

	broker_recheck_file(inode);
	errno = saved;
}

void op_setxattr(fuse_req_t req, fuse_ino_t nodeid, const char *name, const char *value, size_t size,
		 int flags)
{
	struct inode *inode = use_node(req, nodeid);
	char path[INODE_PATH_MAX];
	int result = -1;

	if (!inode)
		return;
	inode_path(inode, path);
	if (caller_begin(req)) {
		result = setxattr(path, name, value, size, flags);
		caller_end(req);
	}
	if (!result && !strcmp(name, ACL_ACCESS)) {
		result = drop_setgid(req, path);
		recheck_tokens(inode);
	}
	reply_result(req, result);
	inode_end_use(inode);
}

void op_removexattr(fuse_req_t req, fuse_ino_t nodeid, const char *name)
{
	struct inode *inode = use_node(req, nodeid);
	char path[INODE_PATH_MAX];
	int result;

	if (!inode)
		return;
	result = removexattr(inode_path(inode, path), name);
	if (!result && !strcmp(name, ACL_ACCESS))
		recheck_tokens(inode);
	reply_result(req, result);
	inode_end_use(inode);
}
