/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "nodes/file-identity.h"
#include "nodes/source.h"

/* The file system of the source, on which other mounts are not visible. */
static dev_t device;
static bool local;

void file_identity_begin(int root_fd, dev_t root_device)
{
	device = root_device;
	local = source_is_local(root_fd);
}

/* statx() tells all at once. */
bool file_identity_read(int fd, struct stat *attr, struct file_identity *identity)
{
	struct statx x;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &x))
		return false;
	/* The time of birth, if there is one. */
	if (!(x.stx_mask & STATX_BTIME))
		x.stx_btime = (struct statx_timestamp){ 0 };
	identity->generation = (uint32_t)x.stx_btime.tv_sec ^ x.stx_btime.tv_nsec << 2;
	*attr = (struct stat){
		.st_dev = makedev(x.stx_dev_major, x.stx_dev_minor),
		.st_ino = x.stx_ino,
		.st_nlink = x.stx_nlink,
		.st_mode = x.stx_mode,
		.st_uid = x.stx_uid,
		.st_gid = x.stx_gid,
		.st_rdev = makedev(x.stx_rdev_major, x.stx_rdev_minor),
		.st_size = (off_t)x.stx_size,
		.st_blksize = x.stx_blksize,
		.st_blocks = (blkcnt_t)x.stx_blocks,
		.st_atim = { x.stx_atime.tv_sec, x.stx_atime.tv_nsec },
		.st_mtim = { x.stx_mtime.tv_sec, x.stx_mtime.tv_nsec },
		.st_ctim = { x.stx_ctime.tv_sec, x.stx_ctime.tv_nsec },
	};
	/* Without the key, or when it was tampered with, such files cannot be opened. */
	identity->readable = local && attr->st_dev == device &&
			  !(x.stx_attributes & (STATX_ATTR_ENCRYPTED | STATX_ATTR_VERITY));
	return true;
}
