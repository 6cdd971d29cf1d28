/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One connection to the control socket: who it is, a line that is read, an answer that is sent. */
#ifndef CONTROL_CLIENT_H
#define CONTROL_CLIENT_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Takes a connection and serves it in a thread of its own, if its user is root or in the group. False: it cannot be
 * taken now, for want of descriptors or memory, and still waits.
 */
bool control_client_accept(int listen_fd, gid_t group);

/* Ends all connections and waits for their threads. */
void control_client_end(void);

#endif
