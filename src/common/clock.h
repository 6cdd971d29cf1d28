/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The monotonic clock, for deadlines. */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Returns the milliseconds that CLOCK_MONOTONIC shows. */
static inline int64_t monotonic_milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#endif
