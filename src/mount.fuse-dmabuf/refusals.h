/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How much of what users are refused is said: they can ask as often as they like, and the log is for others, too. */
#ifndef REFUSALS_H
#define REFUSALS_H

#include <stdbool.h>
#include <sys/types.h>

/* Lines for each user, in a minute. */
#define REFUSALS_MAX 60u

/*
 * Whether one more refusal of that user is to be said. *left_out is how many were not, since the last that was, and is
 * to be said with it.
 */
bool refusal_is_due(uid_t uid, unsigned int *left_out);

#endif
