/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Limits, types and functions that the files of the parser share. */
#ifndef SAFETENSORS_INTERNAL_H
#define SAFETENSORS_INTERNAL_H

#include <stdbool.h>

#include "safetensors.h"

/* Bytes: the limit of the format, as in the reference implementation. */
#define FORMAT_HEADER_MAX 100000000u

/*
 * The limits of this parser, which keep the memory for a header below 48 MiB however hostile it is.
 * The largest checkpoints known have fewer than 100 000 tensors in all their shards together.
 */
#define HEADER_MAX (16u << 20)		/* bytes */
#define TENSORS_MAX (1u << 17)
#define DIMENSIONS_MAX (1u << 20)	/* of all tensors together */
#define ENTRY_MAX (64u << 10)		/* bytes of the text of one tensor's entry or name */
#define METADATA_VALUE_MAX (4u << 20)	/* bytes of the text of one string in __metadata__ */
#define RANK_MAX 64u			/* as in NumPy and PyTorch */

/* All names and shapes of a table. The arrays never grow, so that pointers into them stay valid. */
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

/* Returns true if the text is well-formed UTF-8. */
bool is_utf8(const char *text, size_t length);

/*
 * A function that is called for each member of an object. @key, with its quotes, and @value are
 * pieces of the text. Returns false to end the walk.
 */
typedef bool member_function(void *argument, struct span key, struct span value);

enum walk { WALK_DONE, WALK_ENDED_BY_FUNCTION, WALK_SYNTAX_ERROR };

/*
 * Calls @function for each member of @object, the text of one object, which spaces may follow. The
 * walk finds where keys and values end, and checks the inside of neither.
 */
enum walk walk_object(struct span object, member_function *function, void *argument);

/* ----------------------------------------------------------------- dtype.c */

/* Returns NULL if the data type is not known. */
const struct safetensors_dtype *find_dtype(const char *name);

#endif
