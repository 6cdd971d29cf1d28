/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The source directory, and the properties of its file system and mount. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "log/log.h"
#include "nodes/source.h"

/* glibc defines ST_NOSYMFOLLOW since 2.39. */
#ifndef ST_NOSYMFOLLOW
#define ST_NOSYMFOLLOW 0x2000
#endif

int source_open(const char *path)
{
	int directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd;

	if (directory < 0) {
		log_error("source %s: %s", path, strerror(errno));
		return -1;
	}
	fd = open_tree(directory, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (fd < 0)
		log_error("source %s: its mount cannot be cloned: %s", path, strerror(errno));
	close(directory);
	return fd;
}

bool source_is_local(int fd)
{
	struct statfs status;

	if (fstatfs(fd, &status))
		return false;
	switch (status.f_type) {
	case BTRFS_SUPER_MAGIC:
	case EXT4_SUPER_MAGIC:
	case F2FS_SUPER_MAGIC:
	case TMPFS_MAGIC:
	case XFS_SUPER_MAGIC:
		return true;
	default:
		return false;
	}
}

const char *source_restrictions(int fd, char *buffer, size_t size)
{
	struct statvfs status;
	size_t length;

	buffer[0] = '\0';
	if (fstatvfs(fd, &status))
		return buffer;
	snprintf(buffer, size, "%s%s%s%s%s",
		 status.f_flag & ST_RDONLY ? "ro," : "",
		 status.f_flag & ST_NOSUID ? "nosuid," : "",
		 status.f_flag & ST_NODEV ? "nodev," : "",
		 status.f_flag & ST_NOEXEC ? "noexec," : "",
		 status.f_flag & ST_NOSYMFOLLOW ? "nosymfollow," : "");
	length = strlen(buffer);
	if (length)
		buffer[length - 1] = '\0';
	return buffer;
}
