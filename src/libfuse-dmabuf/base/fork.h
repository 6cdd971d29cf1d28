/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tells a process from its parent. */
#ifndef FDMABUF_FORK_H
#define FDMABUF_FORK_H

/*
 * Returns a number that is another one in a child after fork(2): cheaper than getpid(2). The first
 * call must come before the fork that is to be noticed.
 */
unsigned fork_count(void);

#endif
