/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Limits and functions that the files of the parser share. */
#ifndef SAFETENSORS_INTERNAL_H
#define SAFETENSORS_INTERNAL_H

#include <stdbool.h>
#include <yyjson.h>

#include "safetensors.h"

/* Bytes: the limit of the format, as in the reference implementation. */
#define FORMAT_HEADER_MAX 100000000u

/*
 * MiB that the text of a header, its JSON tree and its table may take together. Enough for a header
 * as large as the format allows, if its tensors take 100 bytes of text each, as is usual, or if it
 * is mostly one string: yyjson asks for 16 bytes of tree for each 6 bytes of text, and does not
 * touch what the tree does not need. A hostile header can make the tree 16 times as large as its
 * text, and is refused when the tree reaches the limit.
 */
#define MEMORY_MAX_MIB 448u

/* Levels of objects and arrays in a header, as in the reference implementation. */
#define DEPTH_MAX 127u

/* All names and shapes of a table. */
struct safetensors_storage {
	char *text;		/* of the header; names are pieces of it */
	uint64_t *dimensions;
	size_t dimensions_used;
};

/* ---------------------------------------------------------------- memory.c */

/* Memory of which no more than a limit is given out. Freed memory does not count as given back. */
struct memory {
	size_t left;		/* bytes */
	bool is_exceeded;	/* something was refused because of the limit */
};

/* Returns memory for free(), or NULL. */
void *memory_allocate(struct memory *memory, size_t size);

/* Returns an allocator for yyjson. @memory must outlive what yyjson allocates. */
yyjson_alc memory_for_json(struct memory *memory);

/* ----------------------------------------------------------------- dtype.c */

/* Returns NULL if the data type is not known. */
const struct safetensors_dtype *find_dtype(const char *name, size_t length);

#endif
