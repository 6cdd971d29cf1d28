/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lines on stderr; with their priorities, if that is the journal of systemd: sd-daemon(3). */
#ifndef STDERR_LOG_H
#define STDERR_LOG_H

#include <stdbool.h>

/* At the start. */
void stderr_log_begin(void);

/* From here on a reader that is stopped does not stop the server. */
void stderr_log_never_wait(void);

/* The level is syslog's. False: there was no room for it. */
bool stderr_log_write(int level, const char *text);

#endif
