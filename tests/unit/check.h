/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Macros for test programs: checks that end the program, and RUN() for one test function. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: %s: not true: %s\n", __FILE__, __LINE__, \
				__func__, #condition); \
			exit(1); \
		} \
	} while (0)

#define CHECK_EQUAL(found, expected) \
	do { \
		long long found_ = (found), expected_ = (expected); \
		if (found_ != expected_) { \
			fprintf(stderr, "%s:%d: %s: %s is %lld, not %lld\n", __FILE__, __LINE__, \
				__func__, #found, found_, expected_); \
			exit(1); \
		} \
	} while (0)

#define RUN(test) \
	do { \
		test(); \
		printf("ok %s\n", #test); \
	} while (0)

/*
 * Returns the next number of a pseudorandom sequence (xorshift64*), which is the same on every
 * machine. *state must not be 0.
 */
static inline unsigned long long next_random(unsigned long long *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

#endif
