/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writes lines to stderr, with priorities if stderr is the journal of systemd: sd-daemon(3). */
#ifndef STDERR_LOG_H
#define STDERR_LOG_H

#include <stdbool.h>

/* Finds out whether stderr is the journal. Called once, when the program starts. */
void stderr_log_begin(void);

/* Makes later writes fail rather than wait: a stopped reader of stderr must not stop the server. */
void stderr_log_set_nonblocking(void);

/* Writes one line. @level is one of syslog. Returns false if there was no room for the line. */
bool stderr_log_write(int level, const char *text);

#endif
