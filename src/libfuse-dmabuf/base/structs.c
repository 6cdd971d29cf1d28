/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copies structs between the caller's version of the header and the library's. */
#include <stdint.h>
#include <string.h>

#include "base/arithmetic.h"
#include "base/error.h"
#include "base/structs.h"

/* The caller's struct begins with a size_t, and may be less aligned than the library's version. */
static size_t size_of(const void *callers)
{
	size_t size;

	memcpy(&size, callers, sizeof(size));
	return size;
}

static int check_size(size_t size)
{
	if (size > sizeof(size_t))
		return 0;
	return fail(EINVAL, "the size of a struct is %zu: set its member size to sizeof of it",
		    size);
}

int copy_struct_from_caller(void *own, size_t own_size, const void *callers)
{
	size_t size = size_of(callers);
	int ret = check_size(size);

	if (ret)
		return ret;
	for (size_t i = own_size; i < size; i++)
		if (((const unsigned char *)callers)[i])
			return fail(E2BIG, "a struct of %zu bytes uses members that this version "
				    "of the library does not know", size);
	memset(own, 0, own_size);
	memcpy(own, callers, min_u64(size, own_size));
	return 0;
}

int copy_struct_to_caller(void *callers, const void *own, size_t own_size)
{
	const size_t head = sizeof(size_t);
	size_t size = size_of(callers);
	int ret = check_size(size);

	if (ret)
		return ret;
	memset((char *)callers + head, 0, size - head);
	memcpy((char *)callers + head, (const char *)own + head, min_u64(size, own_size) - head);
	return 0;
}
