/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What /proc tells of the programs. Of a /proc of the server's own: the one that everybody has may hide the processes
 * of others (hidepid) from who has no CAP_SYS_PTRACE, and the server has not.
 */
#ifndef PROCESSES_H
#define PROCESSES_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

/* Before privileges are dropped. False: explained in the log. */
bool processes_begin(void);
void processes_end(void);

/* The status of a process or thread. NULL: see errno; ENOENT or ESRCH: there is none with this number here. */
FILE *process_status(pid_t pid);

#endif
