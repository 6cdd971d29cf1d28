/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Counts the log lines of each user and minute. */
#include <pthread.h>
#include <time.h>

#include "limits/log-quota.h"

/*
 * Uids with the same remainder are counted together: the table has a fixed size, because users
 * could make another one grow with new uids.
 */
#define USERS 256u

#define WINDOW_SECONDS 60

/* Lines logged in the present minute, and lines left out since the last one that was logged. */
struct window {
	time_t end;
	unsigned int logged, left_out;
};

struct kind {
	unsigned int max;
	struct window of_user[USERS], of_all;
};

static struct {
	pthread_mutex_t lock;
	struct kind kinds[2];
} log_quota = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.kinds = {
		[LOG_QUOTA_GRANTS] = { .max = LOG_QUOTA_GRANTS_MAX },
		[LOG_QUOTA_REFUSALS] = { .max = LOG_QUOTA_REFUSALS_MAX },
	},
};

static void begin_window(struct window *window, time_t now)
{
	if (now < window->end)
		return;
	window->end = now + WINDOW_SECONDS;
	window->logged = 0;
}

bool log_quota_allows(enum log_quota kind, uid_t uid, unsigned int *left_out)
{
	struct window *all = &log_quota.kinds[kind].of_all;
	struct window *user = &log_quota.kinds[kind].of_user[uid % USERS];
	struct timespec now;
	bool allowed;

	clock_gettime(CLOCK_MONOTONIC, &now);
	pthread_mutex_lock(&log_quota.lock);
	begin_window(user, now.tv_sec);
	begin_window(all, now.tv_sec);
	allowed = user->logged < log_quota.kinds[kind].max && all->logged < LOG_QUOTA_ALL_MAX;
	if (allowed) {
		user->logged++;
		all->logged++;
	} else {
		user->left_out++;
	}
	*left_out = user->left_out;
	if (allowed)
		user->left_out = 0;
	pthread_mutex_unlock(&log_quota.lock);
	return allowed;
}
