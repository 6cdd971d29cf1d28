/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The session: mounts the source directory by FUSE and serves the mount until it ends. */
#ifndef SESSION_H
#define SESSION_H

#include "options.h"

/*
 * Mounts @source_fd on @mountpoint, an absolute path, and serves until the mount ends. Returns the
 * exit code of the program.
 */
int session_run(const struct options *options, const char *mountpoint, int source_fd);

#endif
