/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the kernel says when a FUSE server has ended. */
#ifndef COMMON_FUSE_CONNECTION_H
#define COMMON_FUSE_CONNECTION_H

#include <errno.h>
#include <stdbool.h>

/*
 * Returns true if @error (a positive errno of a request to a FUSE file system, or to its device)
 * means that the connection between kernel and server has ended. ENOTCONN is the lasting answer;
 * ECONNABORTED, and with requests by io_uring ECANCELED, come while the connection is torn down.
 */
static inline bool fuse_connection_has_ended(int error)
{
	return error == ENOTCONN || error == ECONNABORTED || error == ECANCELED;
}

#endif
