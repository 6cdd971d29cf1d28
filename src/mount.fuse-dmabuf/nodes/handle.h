/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * File handles: what a file system itself takes to find one file again, as NFS servers do. One is only ever made
 * of a descriptor, so it leads to nothing that was not reached from the source.
 */
#ifndef HANDLE_H
#define HANDLE_H

#include <fcntl.h>
#include <stdbool.h>

/* Tries them out on the source. Without them (some file systems, containers) handle_make() fails. */
void handles_begin(int root_fd);
void handles_end(void);

/* NULL: not possible, or out of memory. */
struct file_handle *handle_make(int fd);

/* Whether the descriptor is of that very file, not of one that got its inode number later. */
bool handle_fits(const struct file_handle *handle, int fd);

/* An O_PATH descriptor. -1: see errno; ESTALE: the file is gone. */
int handle_open(struct file_handle *handle);

#endif
