/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SESSION_H
#define SESSION_H

#include "options.h"

/* Mounts and serves until the end of the mount. The exit code of the program. */
int session_run(const struct options *options, const char *mountpoint, int source_fd);

#endif
