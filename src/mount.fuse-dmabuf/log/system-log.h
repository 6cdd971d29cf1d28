/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sends messages to syslog without waiting. glibc's syslog() waits while the socket is full, and
 * other threads that log wait for its lock: a log daemon that is stopped would stop the server.
 */
#ifndef SYSTEM_LOG_H
#define SYSTEM_LOG_H

#include <stdbool.h>

/* Opens the socket. @program is the name in each message; the string must last. */
void system_log_open(const char *program);

/* Sends one message. @level is one of syslog. Returns false if there was no room for it. */
bool system_log_write(int level, const char *text);

#endif
