/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory with a limit, so that a hostile header cannot take all memory of the machine. */
#include <stdlib.h>

#include "internal.h"

static bool is_within_limit(struct memory *memory, size_t size)
{
	if (size <= memory->left)
		return true;
	memory->is_exceeded = true;
	return false;
}

/* Returns NULL, and leaves the old memory as it is, on failure. */
static void *resize(struct memory *memory, void *old, size_t old_size, size_t size)
{
	size_t more = size > old_size ? size - old_size : 0;
	void *resized = is_within_limit(memory, more) ? realloc(old, size) : NULL;

	if (resized)
		memory->left -= more;
	return resized;
}

void *memory_allocate(struct memory *memory, size_t size)
{
	return resize(memory, NULL, 0, size);
}

static void *allocate_for_json(void *memory, size_t size)
{
	return memory_allocate(memory, size);
}

static void *resize_for_json(void *memory, void *old, size_t old_size, size_t size)
{
	return resize(memory, old, old_size, size);
}

static void free_for_json(void *memory, void *old)
{
	(void)memory;
	free(old);
}

yyjson_alc memory_for_json(struct memory *memory)
{
	return (yyjson_alc){ allocate_for_json, resize_for_json, free_for_json, memory };
}
