/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Attributes of a file, and the properties of a file that stat() does not tell. */
#ifndef FILE_IDENTITY_H
#define FILE_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* Properties that stat() does not tell. */
struct file_identity {
	/* Nearly always differs from that of an earlier file with the same inode number. */
	uint32_t generation;
	/* The file system has no reason of its own to refuse to open the file for reading. */
	bool readable;
};

/* Remembers the device of the source, and whether its file system is local. */
void file_identity_begin(int root_fd, dev_t root_device);

/*
 * Reads the attributes and the identity of the descriptor's file. Returns false with errno set if
 * statx() fails.
 */
bool file_identity_read(int fd, struct stat *attr, struct file_identity *identity);

#endif
