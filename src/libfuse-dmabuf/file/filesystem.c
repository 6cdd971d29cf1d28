/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tells whether a descriptor is on FUSE, and whether the server of that mount has ended. */
#include <errno.h>
#include <linux/magic.h>
#include <sys/statfs.h>

#include "common/fuse-connection.h"
#include "file/file.h"

bool is_on_fuse(int fd)
{
	struct statfs filesystem;

	/* A FUSE server may lack statfs: ENOSYS. All other filesystems have it. */
	if (fstatfs(fd, &filesystem))
		return errno == ENOSYS;
	return filesystem.f_type == FUSE_SUPER_MAGIC;
}

bool server_has_ended(int fd)
{
	struct statfs filesystem;

	/* fstatfs(2) always asks the server; the kernel may answer fstat(2) from its cache. */
	return fstatfs(fd, &filesystem) && fuse_connection_has_ended(errno);
}
