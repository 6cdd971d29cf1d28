/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests come from the kernel, and are answered. In a loop of our own: libfuse's lets nobody look at a request that
 * libfuse does not know, except by fuse_session_custom_io(), which since 3.18.3 only special builds of it have.
 */
#ifndef LOOP_H
#define LOOP_H

#include <fuse_lowlevel.h>

/* Until the file system is unmounted, or a signal comes. 0: in order; an errno: explained in the log. */
int loop_run(struct fuse_session *session);

#endif
