/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <pthread.h>
#include <time.h>

#include "limits/log-quota.h"

/* Users with the same remainder are counted together: no table grows by what users do, also not by new uids. */
#define USERS 256u

#define WINDOW_SECONDS 60

/* What was said in the present minute. */
struct window {
	time_t end;
	unsigned int said, left_out;
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
	window->said = 0;
}

bool log_quota_allows(enum log_quota kind, uid_t uid, unsigned int *left_out)
{
	struct window *all = &log_quota.kinds[kind].of_all, *user = &log_quota.kinds[kind].of_user[uid % USERS];
	struct timespec now;
	bool due;

	clock_gettime(CLOCK_MONOTONIC, &now);
	pthread_mutex_lock(&log_quota.lock);
	begin_window(user, now.tv_sec);
	begin_window(all, now.tv_sec);
	due = user->said < log_quota.kinds[kind].max && all->said < LOG_QUOTA_ALL_MAX;
	if (due) {
		user->said++;
		all->said++;
	} else {
		user->left_out++;
	}
	*left_out = user->left_out;
	if (due)
		user->left_out = 0;
	pthread_mutex_unlock(&log_quota.lock);
	return due;
}
