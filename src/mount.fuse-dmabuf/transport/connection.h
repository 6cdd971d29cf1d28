/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONNECTION_H
#define CONNECTION_H

#include <stdbool.h>

/*
 * The number of a mount's connection, in /sys/fs/fuse/connections and as the minor number of the mount's device.
 * False: see errno.
 */
bool connection_number(int device, const char *mountpoint, unsigned int *number);

#endif
