/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages for people: to stderr until the server is a daemon, then to syslog. */
#ifndef LOG_H
#define LOG_H

#include <syslog.h>

/* Levels are syslog's. What is less urgent than the level is dropped. */
void log_set_level(int level);

/* -1: no such level. */
int log_level_from_name(const char *name);

/* From here on to syslog. */
void log_to_syslog(void);

/* Hands libfuse's messages to this log. */
void log_take_over_libfuse(void);

void log_message(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_message(LOG_ERR, __VA_ARGS__)
#define log_warning(...) log_message(LOG_WARNING, __VA_ARGS__)
#define log_info(...)    log_message(LOG_INFO, __VA_ARGS__)

#endif
