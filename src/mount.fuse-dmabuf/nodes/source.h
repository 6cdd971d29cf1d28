/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The source directory: opens it, and tells the properties of its file system and mount. */
#ifndef SOURCE_H
#define SOURCE_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Returns an O_PATH descriptor of the directory, on a private clone of its mount. Other mounts
 * below the directory, also the server's own, are not on the clone, so no request can reach them.
 * Returns -1 after the log has explained the reason.
 */
int source_open(const char *path);

/* Returns true if no other machine decides who may open a file of the source. */
bool source_is_local(int fd);

/*
 * Returns in @buffer the restrictions of the source's mount, which the server's mount inherits, as
 * mount options ("nosuid,nodev") or "".
 */
const char *source_restrictions(int fd, char *buffer, size_t size);

#endif
