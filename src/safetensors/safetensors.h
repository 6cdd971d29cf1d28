/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The header of a safetensors file: 8 bytes length N, N bytes JSON, then the tensors' data.
 * Only what the reference implementation accepts is accepted: see safetensors_parse().
 */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

struct safetensors_dtype {
	const char *name;	/* as in the header: "F32", "BF16", … */
	unsigned bits;		/* of one element; fewer than 8 for packed types */
};

struct safetensors_tensor {
	const char *name;
	const struct safetensors_dtype *dtype;
	const uint64_t *shape;
	uint32_t rank;
	uint64_t begin, end;	/* the data's offsets in the file; they need not be aligned */
};

struct safetensors {
	struct safetensors_tensor *tensors;	/* by offset, then by name */
	size_t count;
	uint64_t data_offset;			/* where the first tensor begins */
	struct safetensors_storage *storage;
};

/* One line, cut if need be. */
#define SAFETENSORS_ERROR_MAX 512

/*
 * Checks the whole header and makes the table of tensors.
 *
 * @header: the JSON text, @length bytes, need not outlive the call
 * @file_size: of the whole file, which must end with the last tensor's data
 * @file: its name, for errors
 * @error: SAFETENSORS_ERROR_MAX bytes, set on failure to a line that names file, tensor and cure
 *
 * Refused are: anything but one JSON object, text that is not UTF-8, duplicate names, unknown
 * dtypes, sizes that do not match shape and dtype, overlapping tensors, gaps between tensors, data
 * that is missing or left over. Returns NULL on failure; free with safetensors_free().
 */
struct safetensors *safetensors_parse(const char *header, size_t length, uint64_t file_size,
				      const char *file, char *error);

/* Reads bytes of the file: returns their count, fewer than @length only at its end, or a negative
 * errno. */
typedef int64_t safetensors_reader(void *source, void *data, size_t length, uint64_t offset);

/* Reads the header by @reader and parses it. A failure of @reader sets @error to "". */
struct safetensors *safetensors_read(safetensors_reader *reader, void *source, uint64_t file_size,
				     const char *file, char *error);

void safetensors_free(struct safetensors *table);

#endif
