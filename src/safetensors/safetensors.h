/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parser for the header of a safetensors file. The file has 8 bytes with a length N, N bytes of
 * JSON, and then the data of the tensors. The parser accepts only files that the reference
 * implementation accepts, and nearly all of them: see safetensors_parse().
 */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

struct safetensors_dtype {
	const char *name;	/* as in the header: "F32", "BF16", … */
	unsigned bits;		/* size of one element; fewer than 8 for packed types */
};

struct safetensors_tensor {
	const char *name;
	const struct safetensors_dtype *dtype;
	const uint64_t *shape;
	uint32_t rank;
	uint64_t begin, end;	/* offsets of the data in the file; they need not be aligned */
};

struct safetensors {
	struct safetensors_tensor *tensors;	/* sorted by offset, then by name */
	size_t count;
	uint64_t data_offset;			/* in the file; the first tensor begins there */
	struct safetensors_storage *storage;	/* private: what names and shapes point to */
};

/* Bytes of an error: one line with its NUL. A longer line is cut. */
#define SAFETENSORS_ERROR_MAX 512

/*
 * Checks the whole header and makes the table of tensors.
 *
 * @header: the JSON text of @length bytes, which need not outlive the call
 * @file_size: size of the whole file, which must end with the data of the last tensor
 * @file: name of the file, for errors
 * @error: SAFETENSORS_ERROR_MAX bytes, set on failure to a line that names file, tensor and cure
 *
 * Like the reference implementation, the parser refuses: anything but one JSON object, text that
 * is not UTF-8, unknown dtypes, sizes that do not match shape and dtype, overlapping tensors, gaps
 * between tensors, data that is missing or left over. It also refuses a few things that the
 * reference implementation takes: see "FILES THAT ARE REFUSED" in fuse-dmabuf-load(1), which
 * tests/unit/test_header_corpus.py compares with both. However hostile the header is, the parser
 * takes at most 448 MiB of memory. Returns the table, for safetensors_free(), or NULL on failure.
 */
struct safetensors *safetensors_parse(const char *header, size_t length, uint64_t file_size,
				      const char *file, char *error);

/*
 * A function that reads bytes of the file. Returns their number, which is less than @length only at
 * the end of the file, or a negative errno.
 */
typedef int64_t safetensors_reader(void *source, void *data, size_t length, uint64_t offset);

/* Reads the header with @reader and parses it. If @reader fails, sets @error to "". */
struct safetensors *safetensors_read(safetensors_reader *reader, void *source, uint64_t file_size,
				     const char *file, char *error);

/* Frees the table. NULL is allowed. */
void safetensors_free(struct safetensors *table);

#endif
