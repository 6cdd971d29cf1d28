/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef FILE_H
#define FILE_H

#include "inode.h"

/* One open of a file by a program: what the kernel's "fh" points to. */
struct file {
	struct inode *inode;
	int fd;
	int flags;      /* of the open */
};

static inline struct file *file_from_info(const struct fuse_file_info *info)
{
	return (struct file *)(uintptr_t)info->fh;
}

#endif
