/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * On which processor a thread answers. A program that waits for each answer never runs at the same time as the thread
 * that gives it: on its processor it costs a switch, on another, which slept, several times as much as most requests.
 * The scheduler would take that other one.
 */
#ifndef AFFINITY_H
#define AFFINITY_H

#include <stdint.h>

void affinity_begin(void);

/* This thread has got a request of that program (0: of nobody), and goes after it while no other asks. */
void affinity_follow(uint32_t pid);

/* It has got one for whose answer no program may be waiting. */
void affinity_leave(void);

#endif
