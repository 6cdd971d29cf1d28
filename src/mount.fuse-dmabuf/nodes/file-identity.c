/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Attributes and identity of a file, by one statx() call. */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "nodes/file-identity.h"
#include "nodes/source.h"

/* Of the file system of the source. Other mounts are not visible on the source. */
static dev_t source_device;
static bool is_local;

void file_identity_begin(int root_fd, dev_t root_device)
{
	source_device = root_device;
	is_local = source_is_local(root_fd);
}

bool file_identity_read(int fd, struct stat *attr, struct file_identity *identity)
{
	struct statx x;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &x))
		return false;
	/* The generation is the time of birth, or 0 if the file system has none. */
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
	/* Encrypted files cannot be opened without the key, verity files not after tampering. */
	identity->readable = is_local && attr->st_dev == source_device &&
			  !(x.stx_attributes & (STATX_ATTR_ENCRYPTED | STATX_ATTR_VERITY));
	return true;
}
