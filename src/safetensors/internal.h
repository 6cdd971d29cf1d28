/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SAFETENSORS_INTERNAL_H
#define SAFETENSORS_INTERNAL_H

#include <stdbool.h>

#include "safetensors.h"

/* The format's own limit, as in the reference implementation. */
#define FORMAT_HEADER_MAX 100000000u

/*
 * Our limits, which keep the memory for a header below 48 MiB however hostile it is. The largest
 * checkpoints known have fewer than 100 000 tensors in all their shards together.
 */
#define HEADER_MAX (16u << 20)
#define TENSORS_MAX (1u << 17)
#define DIMENSIONS_MAX (1u << 20)	/* of all tensors together */
#define ENTRY_MAX (64u << 10)		/* text of one tensor's entry or name */
#define METADATA_VALUE_MAX (4u << 20)	/* text of one string in __metadata__ */
#define RANK_MAX 64u			/* as in NumPy and PyTorch */

/* Where all names and shapes of a table are kept. Sized once, so that pointers stay. */
struct safetensors_storage {
	char *names;
	size_t names_used;
	uint64_t *dimensions;
	size_t dimensions_used;
};

/* A piece of the header's text. */
struct span {
	const char *text;
	size_t length;
};

/* ------------------------------------------------------------------ text.c */

bool is_utf8(const char *text, size_t length);

/* Called for each member of an object, key (with its quotes) and value as in the text. Returns
 * false to end the walk. */
typedef bool member_function(void *argument, struct span key, struct span value);

enum walk { WALK_DONE, WALK_ENDED_BY_FUNCTION, WALK_SYNTAX_ERROR };

/* Walks over the members of the object that @object consists of, spaces behind it allowed. Finds where
 * keys and values end, but checks the inside of neither. */
enum walk walk_object(struct span object, member_function *function, void *argument);

/* ----------------------------------------------------------------- dtype.c */

/* NULL: not known. */
const struct safetensors_dtype *find_dtype(const char *name);

#endif
