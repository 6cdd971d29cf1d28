/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What there is to know of a file when it is met. */
#ifndef FILE_IDENTITY_H
#define FILE_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* What stat() does not say. */
struct file_identity {
	uint32_t generation;    /* differs from that of a file that had the inode number earlier, nearly always */
	bool readable;          /* its file system has no reason of its own not to open it for reading */
};

void file_identity_begin(int root_fd, dev_t root_device);

/* False: see errno. */
bool file_identity_read(int fd, struct stat *attr, struct file_identity *identity);

#endif
