/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CALLER_H
#define CALLER_H

#include <fuse_lowlevel.h>
#include <stdbool.h>

/*
 * Between the two, what this thread creates belongs to the caller and has the caller's umask (or the
 * directory's default ACL) applied, and is charged to the caller's quota. The server keeps its
 * capabilities: the kernel has checked what the caller may. False: see errno, nothing is to be undone.
 */
bool caller_begin(fuse_req_t req);
void caller_end(fuse_req_t req);

/*
 * The ids that file systems see of this thread; and back to root's, without losing errno. The capabilities stay.
 * False: see errno, nothing is to be undone.
 */
bool ids_set(uid_t uid, gid_t gid);
void ids_reset(void);

/* Whether the caller is in the group; if that cannot be found out, it is not. */
bool caller_in_group(fuse_req_t req, gid_t gid);

#endif
