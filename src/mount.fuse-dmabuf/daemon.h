/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Detaches the server from the process that started it, once the mount works. */
#ifndef DAEMON_H
#define DAEMON_H

#include <stdbool.h>

/*
 * Forks. Only the child returns: the parent waits until the child calls daemon_ready() and exits
 * with 0, or, if the child ends earlier, with the exit code of the child. Returns false if fork()
 * or pipe() fails; the log says why.
 */
bool daemon_begin(void);

/*
 * Tells the parent, which exits, that the mount works. Messages go to syslog from here on. Without
 * daemon_begin() it does nothing and returns true. Returns false if the parent has been killed.
 */
bool daemon_ready(void);

#endif
