/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdbool.h>

/*
 * syslog() that never waits. glibc's does while the socket is full, with every other thread that has something to
 * say behind it: a log that is stopped would stop the server.
 */
#ifndef SYSTEM_LOG_H
#define SYSTEM_LOG_H

void system_log_open(const char *program);

/* The level is syslog's. False: there was no room for it. */
bool system_log_write(int level, const char *text);

#endif
