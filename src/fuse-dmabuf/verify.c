/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compares a destination with its file, piece by piece. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "complain.h"
#include "exit-code.h"
#include "interrupt.h"
#include "progress.h"
#include "verify.h"

/* Bytes that are read and compared at a time. */
#define PIECE_SIZE (1u << 20)

/* Tensors that get a message: a destination that is wrong all over must not flood the terminal. */
#define MESSAGES_MAX 5u

struct verification {
	struct fdmabuf_file *file;
	struct fdmabuf_buffer *buffer;
	const struct safetensors *table;
	const char *name;
	unsigned char *expected, *found;	/* PIECE_SIZE bytes each */
	size_t tensor;				/* the first that is not compared to its end yet */
	size_t wrong_tensors;			/* so far */
	bool reported;				/* the tensor is among the wrong ones already */
};

static void report_difference(struct verification *v, const struct safetensors_tensor *tensor,
			      uint64_t offset)
{
	v->reported = true;
	if (v->wrong_tensors++ < MESSAGES_MAX)
		complain("%s: tensor \"%s\": byte %llu is wrong in the destination", v->name,
			 tensor->name, (unsigned long long)(offset - tensor->begin));
}

/* Compares the part of a piece, from offset @from to @to of the file, that belongs to a tensor. */
static void compare_part(struct verification *v, const struct safetensors_tensor *tensor,
			 uint64_t from, uint64_t to, uint64_t piece_begin)
{
	const unsigned char *expected = v->expected + (from - piece_begin);
	const unsigned char *found = v->found + (from - piece_begin);
	uint64_t i = 0;

	if (v->reported || !memcmp(expected, found, to - from))
		return;
	while (expected[i] == found[i])
		i++;
	report_difference(v, tensor, from + i);
}

/* Compares a piece. Tensors follow each other without gaps, so that every byte is compared. */
static void compare_piece(struct verification *v, uint64_t begin, uint64_t end)
{
	while (v->tensor < v->table->count) {
		const struct safetensors_tensor *tensor = &v->table->tensors[v->tensor];
		uint64_t from = tensor->begin > begin ? tensor->begin : begin;
		uint64_t to = tensor->end < end ? tensor->end : end;

		if (from < to)
			compare_part(v, tensor, from, to, begin);
		if (tensor->end > end)
			return;
		v->tensor++;
		v->reported = false;
	}
}

/* Reads a piece of the file and of the destination. Returns 0, or the exit code after a message. */
static int read_piece(struct verification *v, uint64_t begin, size_t length)
{
	int64_t got = fdmabuf_file_pread(v->file, v->expected, length, begin);

	if (got < 0)
		return complain("%s", fdmabuf_error());
	if ((size_t)got < length)
		return complain("%s: was truncated while it was verified: start again", v->name);
	if (fdmabuf_buffer_read(v->buffer, begin, v->found, length))
		return complain("%s", fdmabuf_error());
	return 0;
}

static int compare_all(struct verification *v)
{
	uint64_t position = v->table->data_offset, end = fdmabuf_file_size(v->file);
	const uint64_t first = position;

	while (position < end) {
		uint64_t length = end - position < PIECE_SIZE ? end - position : PIECE_SIZE;

		if (caught_signal())
			return 128 + caught_signal();
		if (read_piece(v, position, length))
			return EXIT_FAILED;
		compare_piece(v, position, position + length);
		position += length;
		progress_show(position - first, end - first);
	}
	return 0;
}

int verify_tensors(struct fdmabuf_file *file, struct fdmabuf_buffer *buffer,
		   const struct safetensors *table, const char *name)
{
	struct verification v = { .file = file, .buffer = buffer, .table = table, .name = name };
	int ret;

	v.expected = malloc(2 * PIECE_SIZE);
	if (!v.expected)
		return complain("out of memory");
	v.found = v.expected + PIECE_SIZE;
	progress_begin("verifying");
	ret = compare_all(&v);
	progress_end();
	free(v.expected);
	if (ret)
		return ret;
	if (v.wrong_tensors)
		return complain("%s: %zu of %zu tensors are wrong in the destination", name,
				v.wrong_tensors, table->count);
	return 0;
}
