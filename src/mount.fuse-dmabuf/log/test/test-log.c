/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests how often a repeated message is logged. */
#include <time.h>

#include "check.h"
#include "log/log.h"

int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

static time_t seconds = 1000;

/* The clock must be the monotonic one: a clock that is set back would silence the log. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
	CHECK_EQUAL(clock, CLOCK_MONOTONIC);
	*now = (struct timespec){ .tv_sec = seconds };
	return 0;
}

static void what_may_happen_at_each_request_is_said_once_a_minute(void)
{
	atomic_llong next = 0;

	CHECK(log_is_due(&next) && !log_is_due(&next));
	seconds += 59;
	CHECK(!log_is_due(&next));
	seconds++;
	CHECK(log_is_due(&next) && !log_is_due(&next));
}

int main(void)
{
	RUN(what_may_happen_at_each_request_is_said_once_a_minute);
	return 0;
}
