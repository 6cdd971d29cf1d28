/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A progress bar on standard error, which is shown only if that is a terminal. */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <stdint.h>

/* Begins a task, for which the bar starts at 0. The bar keeps a pointer to the name @task. */
void progress_begin(const char *task);

/* Changes the name of the task that has begun. */
void progress_rename(const char *task);

/* Draws the bar, unless it was drawn a moment ago and there is more to do. */
void progress_show(uint64_t done, uint64_t total);

/* Ends the task and takes the bar away. */
void progress_end(void);

#endif
