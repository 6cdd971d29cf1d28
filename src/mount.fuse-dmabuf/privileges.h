/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PRIVILEGES_H
#define PRIVILEGES_H

#include <stdbool.h>
#include <stddef.h>

/* Gives up what the server does not need, for good. False: explained in the log. */
bool privileges_drop(void);

/* Of the calling thread, and of those that it starts while it does without. */
void privileges_suspend(void);
void privileges_resume(void);

/* Open files, and the nodes that the kernel knows, hold descriptors: as many as the system allows. How many. */
size_t privileges_raise_file_limit(void);

#endif
