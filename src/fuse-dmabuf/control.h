/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The client of the control sockets, which fuse-dmabuf-control(7) describes. */
#ifndef CONTROL_H
#define CONTROL_H

#include <jansson.h>
#include <stdbool.h>

/*
 * Sends @request, which the call frees, to the server of a mount. Waits for the answer for @limit
 * seconds, or if 0 as long as the server answers pings. Returns the answer, whose "ok" is true, for
 * json_decref(); or NULL after a message.
 */
json_t *ask_server(const char *mountpoint, json_t *request, unsigned int limit);

/*
 * Returns the minor device numbers of all mounts that have a control socket, ended by 0. The caller
 * frees them. Returns NULL after a message.
 */
unsigned int *list_servers(void);

/*
 * Does the same for the mount with the minor device number @number. If its server has ended, sets
 * *gone and returns NULL without a message.
 */
json_t *ask_server_number(unsigned int number, json_t *request, unsigned int limit, bool *gone);

#endif
