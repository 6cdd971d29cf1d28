/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <pthread.h>
#include <time.h>

#include "refusals.h"

/* Users with the same remainder are counted together: no table grows by what users do, also not by new uids. */
#define USERS 256u

#define WINDOW_SECONDS 60

static struct {
	pthread_mutex_t lock;
	struct {
		time_t end;
		unsigned int said, left_out;
	} of_user[USERS];
} refusals = { .lock = PTHREAD_MUTEX_INITIALIZER };

bool refusal_is_due(uid_t uid, unsigned int *left_out)
{
	__typeof__(refusals.of_user[0]) *user = &refusals.of_user[uid % USERS];
	struct timespec now;
	bool due;

	clock_gettime(CLOCK_MONOTONIC, &now);
	pthread_mutex_lock(&refusals.lock);
	if (now.tv_sec >= user->end) {
		user->end = now.tv_sec + WINDOW_SECONDS;
		user->said = 0;
	}
	due = user->said < REFUSALS_MAX;
	if (due)
		user->said++;
	else
		user->left_out++;
	*left_out = user->left_out;
	if (due)
		user->left_out = 0;
	pthread_mutex_unlock(&refusals.lock);
	return due;
}
