/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "log.h"
#include "source.h"

int source_open(const char *path)
{
	struct stat status;
	int fd;

	if (stat(path, &status)) {
		log_error("source %s: %s", path, strerror(errno));
		return -1;
	}
	if (!S_ISDIR(status.st_mode)) {
		log_error("source %s: not a directory", path);
		return -1;
	}
	fd = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (fd < 0)
		log_error("source %s: cannot clone its mount (open_tree: %s)", path, strerror(errno));
	return fd;
}

const char *source_restrictions(int fd, char *buffer, size_t size)
{
	struct statvfs status;

	buffer[0] = '\0';
	if (!fstatvfs(fd, &status))
		snprintf(buffer, size, "%s%s%s%s",
			 status.f_flag & ST_RDONLY ? ",ro" : "",
			 status.f_flag & ST_NOSUID ? ",nosuid" : "",
			 status.f_flag & ST_NODEV ? ",nodev" : "",
			 status.f_flag & ST_NOEXEC ? ",noexec" : "");
	return buffer;
}
