/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The administrator's side: threads for SIGHUP and the control socket, fuse-dmabuf-control(7). */
#ifndef CONTROL_H
#define CONTROL_H

#include <stdbool.h>

#include "options.h"

/*
 * After the mount, before other threads start: SIGHUP comes here. False: logged. Without
 * a socket the server does its work as well; that is only logged.
 */
bool control_begin(const struct options *options, const char *mountpoint, int device);

/* Waits for what clients have begun. */
void control_end(void);

#endif
