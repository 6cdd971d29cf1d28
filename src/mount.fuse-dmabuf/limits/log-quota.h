/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How much is said of what users do: they can do it as often as they like, and the log is for others, too. */
#ifndef LOG_QUOTA_H
#define LOG_QUOTA_H

#include <stdbool.h>
#include <sys/types.h>

/* What is counted by itself. */
enum log_quota {
	LOG_QUOTA_GRANTS,        /* the end of a token is said if its grant was */
	LOG_QUOTA_REFUSALS,
};

/* Lines in a minute, of each user and of all together. A GPU server registers some hundred buffers for a model. */
#define LOG_QUOTA_GRANTS_MAX 600u
#define LOG_QUOTA_REFUSALS_MAX 60u
#define LOG_QUOTA_ALL_MAX 2400u

/*
 * Whether one more line of that kind is to be said of a user. *left_out is how many were not, since the last that was,
 * and is to be said with it.
 */
bool log_quota_allows(enum log_quota kind, uid_t uid, unsigned int *left_out);

#endif
