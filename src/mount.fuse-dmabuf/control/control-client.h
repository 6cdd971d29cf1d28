/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clients of the control socket: decides who may connect, reads a request line, sends the answer.
 */
#ifndef CONTROL_CLIENT_H
#define CONTROL_CLIENT_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Accepts a connection and serves it in a thread of its own, if its user is root or in @group.
 * Returns false if there are too few descriptors or too little memory now; the connection still
 * waits then.
 */
bool control_client_accept(int listen_fd, gid_t group);

/* Ends all connections and waits for their threads. */
void control_client_end(void);

#endif
