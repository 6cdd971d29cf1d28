/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * control/ is the administrator's side: threads for SIGHUP and the control socket, fuse-dmabuf-control(7).
 * May call: broker, identity, limits, log, nodes.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include <stdbool.h>

#include "broker/policy-load.h"

/* The mount that is administered. All must last until control_end(). */
struct control_mount {
	const char *source, *mountpoint;
	unsigned int connection;                /* its number, which names the socket */
	gid_t group;                            /* may use the socket, beside root; 0: nobody */
	const struct policy_options *policy;    /* read again for SIGHUP */
};

/*
 * After the mount, before other threads start: SIGHUP comes here. False: logged. Without
 * a socket the server does its work as well; that is only logged.
 */
bool control_begin(const struct control_mount *mount);

/* Waits for what clients have begun. */
void control_end(void);

#endif
