/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * log/ carries messages to people: to stderr until the server is a daemon, then to syslog. Nobody is waited for: a message that
 * finds no room is lost, and before the next it is said how many were.
 * May call: nothing.
 */
#ifndef LOG_H
#define LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <syslog.h>

#define LOG_PROGRAM "mount.fuse-dmabuf"

/* At the start: libfuse's messages come to this log. */
void log_begin(void);

/* Levels are syslog's. What is less urgent than the level is dropped. */
void log_set_level(int level);

/* -1: no such level. */
int log_level_from_name(const char *name);

/* From here on to syslog. */
void log_to_syslog(void);

void log_message(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Whether something that may happen at each request is to be said: at most once a minute. *next, 0 at first, is when
 * it is again, by the monotonic clock.
 */
bool log_is_due(atomic_llong *next);

#define log_error(...)   log_message(LOG_ERR, __VA_ARGS__)
#define log_warning(...) log_message(LOG_WARNING, __VA_ARGS__)
#define log_info(...)    log_message(LOG_INFO, __VA_ARGS__)

#endif
