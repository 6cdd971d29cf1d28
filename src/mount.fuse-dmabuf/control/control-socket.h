/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes and removes the control socket, /run/fuse-dmabuf/NUMBER.socket. */
#ifndef CONTROL_SOCKET_H
#define CONTROL_SOCKET_H

#include <sys/types.h>

/*
 * Opens the socket of the connection @number, for root and for @group (0: for root only). Returns
 * the descriptor on which clients can be accepted, or -1; the log says why.
 */
int control_socket_open(unsigned int number, gid_t group);

/*
 * Closes the socket, and removes its file unless a later server has put its own there. Does nothing
 * if @fd is -1.
 */
void control_socket_close(int fd, unsigned int number);

#endif
