/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For LD_PRELOAD: a server that has memory for its first request, and then, a few times, for no other. */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#define REQUEST (1u << 20)
#define FAILURES 5u

static bool fails(size_t size)
{
	static atomic_uint count;

	return size >= REQUEST && atomic_fetch_add(&count, 1) - 1 < FAILURES;
}

void *__libc_malloc(size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size)
{
	if (!fails(size))
		return __libc_malloc(size);
	errno = ENOMEM;
	return NULL;
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
	*memory = fails(size) ? NULL : __libc_memalign(alignment, size);
	return *memory ? 0 : ENOMEM;
}
