/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Open files: their descriptors, and the table of all that are open. */
#ifndef FILE_H
#define FILE_H

#include "containers/hash-table.h"
#include "nodes/inode.h"

/* One open of a file by a program. The kernel's handle of the open ("fh") is its address. */
struct file {
	struct hash_link link;  /* in the table of open-files.c */
	struct inode *inode;    /* in use as long as the file is open */
	atomic_int fd;          /* -1: nothing has needed a descriptor so far */
	int flags;              /* of the program's open */
	uid_t uid;              /* of the user whose quota counts the file */
};

static inline struct file *file_from_info(const struct fuse_file_info *info)
{
	return (struct file *)(uintptr_t)info->fh;
}

/*
 * Returns the server's descriptor of the file, or -1 with errno set. It has the flags of the
 * program's open except O_DIRECT, whatever fcntl(2) has changed since. For passthrough of data the
 * kernel opens a backing file of its own with the same flags; the server's descriptor is for
 * everything else.
 */
int file_fd(struct file *file);

/*
 * open-files.c: adds a file to the table of open files, or removes it, and tells the quota of its
 * user. Only token requests search the table: they may arrive when the program was killed and the
 * file is closed already. Other requests keep their file open until they are answered.
 */
void open_files_add(struct file *file);
void open_files_remove(struct file *file);

/*
 * Finds the open file of a handle, and sets *flags to those of the open. Returns its node, kept
 * until inode_let_go(), or NULL if no such file is open, or if the file is not of @nodeid.
 */
struct inode *open_files_find(uint64_t fh, uint64_t nodeid, int *flags);

#endif
