/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DAEMON_H
#define DAEMON_H

#include <stdbool.h>

/*
 * Forks. Only the child returns; the parent waits for daemon_ready() and then exits with 0, or, if the
 * child ends before, with the child's exit code. False: cannot fork.
 */
bool daemon_begin(void);

/* The mount works: the parent may exit, messages go to syslog. False: nobody waits any more. */
bool daemon_ready(void);

#endif
