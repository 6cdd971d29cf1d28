/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Some file systems keep their last blocks for root (ext4, F2FS), which they know by the ids of the one who writes.
 * That is the server, whose ids the kernel also takes for writes by passthrough, whoever's they are.
 */
#ifndef RESERVE_H
#define RESERVE_H

#include <stdbool.h>

void reserve_begin(int root_fd);

/*
 * Between the two this thread, and what it registers for passthrough, gets none of these blocks. It keeps its
 * capabilities. False: see errno, nothing is to be undone.
 */
bool reserve_forgo(void);
void reserve_resume(void);

#endif
