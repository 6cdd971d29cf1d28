/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include "caller.h"
#include "reserve.h"

/* Nobody's, as for NFS. */
#define NOBODY 65534

/* Elsewhere the server stays root: a server of files may ask who opens them. */
static bool kept;

void reserve_begin(int root_fd)
{
	struct statfs status;

	kept = !fstatfs(root_fd, &status) &&
	       (status.f_type == EXT4_SUPER_MAGIC || status.f_type == F2FS_SUPER_MAGIC);
}

bool reserve_forgo(void)
{
	/* EINVAL: a user namespace that has no such user, and whose root is none for the file system either. */
	return !kept || ids_set(NOBODY, NOBODY) || errno == EINVAL;
}

void reserve_resume(void)
{
	if (kept)
		ids_reset();
}
