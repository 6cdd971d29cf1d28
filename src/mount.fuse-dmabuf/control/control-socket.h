/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROL_SOCKET_H
#define CONTROL_SOCKET_H

#include <sys/types.h>

/* /run/fuse-dmabuf/NUMBER.socket, for root and the group (0: root only). -1: logged. */
int control_socket_open(unsigned int number, gid_t group);

/* Closes and removes it, unless a later server has put its own there. */
void control_socket_close(int fd, unsigned int number);

#endif
