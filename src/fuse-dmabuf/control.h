/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The client's side of fuse-dmabuf-control(7). */
#ifndef CONTROL_H
#define CONTROL_H

#include <jansson.h>
#include <stdbool.h>

/*
 * Asks the server of a mount. Takes over the request. The answer, for json_decref(), whose "ok" is true; or
 * NULL after a message: also when it takes longer than so many seconds (0: however long it takes), or when the
 * server answers nobody any more.
 */
json_t *ask_server(const char *mountpoint, json_t *request, unsigned int limit);

/* The numbers of all mounts that have a control socket; for free(), ended by 0. NULL after a message. */
unsigned int *list_servers(void);

/* The same as ask_server(), by number. NULL without a message if *gone: the server has ended. */
json_t *ask_server_number(unsigned int number, json_t *request, unsigned int limit, bool *gone);

#endif
