/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Arithmetic of offsets and lengths. */
#ifndef FDMABUF_ARITHMETIC_H
#define FDMABUF_ARITHMETIC_H

#include <stdint.h>

static inline uint64_t align_down(uint64_t value, uint64_t power_of_two)
{
	return value & ~(power_of_two - 1);
}

static inline uint64_t align_up(uint64_t value, uint64_t power_of_two)
{
	return align_down(value + power_of_two - 1, power_of_two);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

#endif
