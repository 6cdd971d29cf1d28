/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The data types of the format and their sizes in bits. */
#include <string.h>

#include "internal.h"

static const struct safetensors_dtype dtypes[] = {
	{ "BOOL", 8 },
	{ "F4", 4 },
	{ "F6_E2M3", 6 },
	{ "F6_E3M2", 6 },
	{ "U8", 8 },
	{ "I8", 8 },
	{ "F8_E5M2", 8 },
	{ "F8_E4M3", 8 },
	{ "F8_E8M0", 8 },
	{ "F8_E4M3FNUZ", 8 },
	{ "F8_E5M2FNUZ", 8 },
	{ "I16", 16 },
	{ "U16", 16 },
	{ "F16", 16 },
	{ "BF16", 16 },
	{ "I32", 32 },
	{ "U32", 32 },
	{ "F32", 32 },
	{ "C64", 64 },
	{ "F64", 64 },
	{ "I64", 64 },
	{ "U64", 64 },
};

const struct safetensors_dtype *find_dtype(const char *name, size_t length)
{
	for (size_t i = 0; i < sizeof(dtypes) / sizeof(*dtypes); i++)
		if (strlen(dtypes[i].name) == length && !memcmp(name, dtypes[i].name, length))
			return &dtypes[i];
	return NULL;
}
