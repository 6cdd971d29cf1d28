/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What kind of filesystem a descriptor is on, and whether it still lives. */
#include <linux/magic.h>
#include <sys/statfs.h>

#include "common/fuse-connection.h"
#include "internal.h"

bool is_on_fuse(int fd)
{
	struct statfs filesystem;

	/* A FUSE server need not answer; no other filesystem lacks it. */
	if (fstatfs(fd, &filesystem))
		return errno == ENOSYS;
	return filesystem.f_type == FUSE_SUPER_MAGIC;
}

bool server_has_ended(int fd)
{
	struct statfs filesystem;

	/* The kernel keeps no answer to this one, unlike those to stat(2). */
	return fstatfs(fd, &filesystem) && fuse_connection_has_ended(errno);
}
