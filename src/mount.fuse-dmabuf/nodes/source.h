/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SOURCE_H
#define SOURCE_H

#include <stdbool.h>
#include <stddef.h>

/*
 * An O_PATH descriptor of the directory, on a private clone of its mount: other mounts below it (this
 * server's own too) are not on the clone, so no request can wander into them. -1: explained in the log.
 */
int source_open(const char *path);

/* Returns true if no server of another machine decides who may open a file. */
bool source_is_local(int fd);

/* The restrictions of the source's mount, which this mount inherits, as options ("nosuid,nodev") or "". */
const char *source_restrictions(int fd, char *buffer, size_t size);

#endif
