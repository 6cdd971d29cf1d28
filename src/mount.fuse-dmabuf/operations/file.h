/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef FILE_H
#define FILE_H

#include "containers/hash-table.h"
#include "nodes/inode.h"

/* One open of a file by a program: what the kernel's "fh" points to. */
struct file {
	struct hash_link link;  /* open-files.c */
	struct inode *inode;    /* in use */
	atomic_int fd;          /* -1: not needed so far */
	int flags;              /* of the open */
	uid_t uid;              /* of who opened it */
};

static inline struct file *file_from_info(const struct fuse_file_info *info)
{
	return (struct file *)(uintptr_t)info->fh;
}

/*
 * A descriptor that was opened as the program wanted, and has these flags but O_DIRECT, whatever fcntl(2) has changed
 * since. The kernel opens a backing file of its own with the same flags; this one is for everything but the data.
 * -1: see errno.
 */
int file_fd(struct file *file);

/*
 * open-files.c: all that are open. Ordinary requests keep their file open until they are answered, so they
 * need not look. A token request may come when its program was killed and the file is closed already.
 */
void open_files_add(struct file *file);
void open_files_remove(struct file *file);

/* The node, kept, and the flags of the open. NULL: not open, or not of that node. */
struct inode *open_files_find(uint64_t fh, uint64_t nodeid, int *flags);

#endif
