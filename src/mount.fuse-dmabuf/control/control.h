/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * control/ is the administrator's side: threads for SIGHUP and for the control socket, which
 * fuse-dmabuf-control(7) describes.
 * May call: broker, identity, limits, log, nodes.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include <stdbool.h>

#include "broker/policy-load.h"

/* The mount that is administered. All pointers must last until control_end(). */
struct control_mount {
	const char *source, *mountpoint;
	unsigned int connection;                /* its number, which names the socket */
	gid_t group;                            /* may use the socket, beside root; 0: none */
	const struct policy_options *policy;    /* read again for SIGHUP */
};

/*
 * Starts the threads. Called after the mount, and before other threads start, because they must
 * inherit that SIGHUP is blocked. Returns false if they cannot be started; the log says why. If
 * only the socket cannot be opened, that is logged, and the server works without it.
 */
bool control_begin(const struct control_mount *mount);

/*
 * Ends the threads and removes the socket. Waits until requests that are being answered are done.
 */
void control_end(void);

#endif
