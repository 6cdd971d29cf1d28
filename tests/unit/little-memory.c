/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For LD_PRELOAD: makes a few large allocations of a server fail. The server has memory for its
 * first request, and then, a few times, for no other.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#define REQUEST_SIZE_MIN (1u << 20)	/* bytes; larger allocations are for requests */
#define FAILURES 5u

static bool is_to_fail(size_t size)
{
	static atomic_uint count;

	return size >= REQUEST_SIZE_MIN && atomic_fetch_add(&count, 1) - 1 < FAILURES;
}

void *__libc_malloc(size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size)
{
	if (!is_to_fail(size))
		return __libc_malloc(size);
	errno = ENOMEM;
	return NULL;
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
	*memory = is_to_fail(size) ? NULL : __libc_memalign(alignment, size);
	return *memory ? 0 : ENOMEM;
}
