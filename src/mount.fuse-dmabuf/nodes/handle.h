/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * File handles, by which a file system finds a file again, as for NFS servers. A handle is made
 * only from a descriptor, so it leads to no file that was not reached from the source.
 */
#ifndef HANDLE_H
#define HANDLE_H

#include <fcntl.h>
#include <stdbool.h>

/*
 * Finds out whether handles work on the source. If they do not (on some file systems, in
 * containers), handle_make() fails.
 */
void handles_begin(int root_fd);

/* Closes the descriptor by which handles are opened. handle_make() fails then. */
void handles_end(void);

/*
 * Returns the handle of the descriptor's file; the caller frees it with free(). Returns NULL if
 * there are no handles, or if memory is short.
 */
struct file_handle *handle_make(int fd);

/*
 * Returns true if the handle is of the descriptor's file. A file that got the same inode number
 * later has another handle.
 */
bool handle_fits(const struct file_handle *handle, int fd);

/* Returns an O_PATH descriptor, or -1 with errno set: ESTALE if the file is gone. */
int handle_open(struct file_handle *handle);

#endif
