/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Nodes in use: opens their files, also when the process has no descriptor left, and names them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "limits/descriptor-limit.h"
#include "log/log.h"
#include "nodes/descriptors.h"
#include "nodes/handle.h"
#include "nodes/inode.h"

/* Descriptor of /proc/self/fd: paths of open files are shorter from there than from the root. */
static int own_fds = -1;

int inode_open_child(const struct inode *parent, const char *name)
{
	int fd;

	do {
		fd = openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	} while (fd < 0 && may_open_again());
	return check_file_limit(fd);
}

bool inode_open_begin(void)
{
	own_fds = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (own_fds < 0)
		log_error("cannot open /proc/self/fd: %s", strerror(errno));
	return own_fds >= 0;
}

void inode_open_end(void)
{
	close(own_fds);
}

int reopen(int fd, int flags)
{
	char name[16];
	int new_fd;

	snprintf(name, sizeof(name), "%d", fd);
	do {
		/* The name is a link to the file itself; O_NOFOLLOW would refuse it. */
		new_fd = openat(own_fds, name, (flags & ~O_NOFOLLOW) | O_CLOEXEC);
	} while (new_fd < 0 && may_open_again());
	return check_file_limit(new_fd);
}

bool inode_is_append_only(const struct inode *inode)
{
	struct statx attr;

	return !statx(inode->fd, "", AT_EMPTY_PATH, STATX_TYPE, &attr) &&
	       attr.stx_attributes & STATX_ATTR_APPEND;
}

static int open_by_handle(struct inode *inode)
{
	int fd;

	do {
		fd = handle_open(inode->descriptor.handle);
	} while (fd < 0 && may_open_again());
	return check_file_limit(fd);
}

bool inode_use(struct inode *inode)
{
	bool opened = false, usable;

	pthread_mutex_lock(&inode->lock);
	if (inode->fd < 0) {
		inode->fd = open_by_handle(inode);
		opened = inode->descriptor.is_by_handle = inode->fd >= 0;
	}
	usable = inode->fd >= 0;
	if (usable) {
		inode->users++;
		inode->descriptor.is_recently_used = true;
	}
	pthread_mutex_unlock(&inode->lock);
	if (opened)
		descriptors_add(inode);
	return usable;
}

const char *fd_path(int fd, char path[INODE_PATH_MAX])
{
	snprintf(path, INODE_PATH_MAX, "/proc/self/fd/%d", fd);
	return path;
}

const char *inode_path(const struct inode *inode, char path[INODE_PATH_MAX])
{
	return fd_path(inode->fd, path);
}

/*
 * Returns false if the descriptor is not connected to the tree, as one that was opened by a handle
 * may be. Its name is then "/", which otherwise only the root has.
 */
static bool is_connected(const struct inode *inode, const char *name)
{
	return inode->nodeid == FUSE_ROOT_ID || strcmp(name, "/");
}

const char *inode_name(const struct inode *inode, char name[INODE_NAME_MAX])
{
	char path[INODE_PATH_MAX];
	ssize_t length = readlink(inode_path(inode, path), name, INODE_NAME_MAX - 1);

	name[length < 0 ? 0 : length] = '\0';
	if (!is_connected(inode, name))
		name[0] = '\0';
	return name;
}
