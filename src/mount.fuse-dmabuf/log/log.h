/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * log/ writes messages for people: to stderr until the server is a daemon, then to syslog. It does
 * not wait for a full log: messages are lost, and when there is room again, the log says how many.
 * May call: nothing.
 */
#ifndef LOG_H
#define LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <syslog.h>

#define LOG_PROGRAM "mount.fuse-dmabuf"

/* Starts to log to stderr, also the messages of libfuse. Called once, when the program starts. */
void log_begin(void);

/* Sets a level of syslog. Messages that are less urgent are dropped. */
void log_set_level(int level);

/* Returns the level of syslog that the mount option log=NAME means, or -1 if there is none. */
int log_level_from_name(const char *name);

/* Sends messages to syslog from here on. */
void log_to_syslog(void);

/* Writes one line. Control characters in it become question marks. Keeps errno. */
void log_message(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Returns true at most once a minute, for a message that each request could cause. *next belongs to
 * the message: 0 at first, then the second of CLOCK_MONOTONIC from which the message is due again.
 */
bool log_is_due(atomic_llong *next);

#define log_error(...)   log_message(LOG_ERR, __VA_ARGS__)
#define log_warning(...) log_message(LOG_WARNING, __VA_ARGS__)
#define log_info(...)    log_message(LOG_INFO, __VA_ARGS__)

#endif
