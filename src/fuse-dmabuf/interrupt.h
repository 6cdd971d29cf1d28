/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The signals that interrupt a load: SIGINT, SIGTERM and SIGHUP. */
#ifndef INTERRUPT_H
#define INTERRUPT_H

/*
 * From this call on the first of each signal is only noted, so that requests in flight can end; a
 * second one ends the program without waiting for them.
 */
void catch_signals(void);

/* Returns the signal that came last, or 0. */
int caught_signal(void);

#endif
