/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Limits the log lines that each user causes: users can repeat requests as often as they like, and
 * would fill a log that is for others, too.
 */
#ifndef LOG_QUOTA_H
#define LOG_QUOTA_H

#include <stdbool.h>
#include <sys/types.h>

/* The kinds of lines, each of which is counted separately. */
enum log_quota {
	LOG_QUOTA_GRANTS,        /* the end of a token is logged if its grant was */
	LOG_QUOTA_REFUSALS,
};

/* In lines per minute for each user. A GPU server registers some hundred buffers for a model. */
#define LOG_QUOTA_GRANTS_MAX 600u
#define LOG_QUOTA_REFUSALS_MAX 60u

/* In lines per minute of one kind, for all users together. */
#define LOG_QUOTA_ALL_MAX 2400u

/*
 * Returns true if one more line of this kind may be logged for the user. *left_out is the number of
 * lines that were left out since the last one; the caller logs the number with the line.
 */
bool log_quota_allows(enum log_quota kind, uid_t uid, unsigned int *left_out);

#endif
