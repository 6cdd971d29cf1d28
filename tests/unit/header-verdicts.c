/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * header-verdicts: parses many files, which standard input brings, each behind 8 bytes with its
 * size. Prints a line for each file: "refused" and the error, or "taken" and the number of tensors,
 * and then a line for each tensor: its name in hexadecimal digits between quotes, dtype, begin and
 * end in the file, and the dimensions. For test_header_corpus.py.
 */
#include <inttypes.h>
#include <string.h>

#include "check.h"
#include "safetensors.h"

struct file {
	char *data;
	uint64_t size;
};

static int64_t read_file(void *source, void *data, size_t length, uint64_t offset)
{
	const struct file *file = source;
	uint64_t left = offset < file->size ? file->size - offset : 0;
	size_t got = length < left ? length : left;

	memcpy(data, file->data + offset, got);
	return got;
}

static void print_tensor(const struct safetensors_tensor *tensor)
{
	putchar('"');
	for (const char *c = tensor->name; *c; c++)
		printf("%02x", (unsigned char)*c);
	printf("\" %s %" PRIu64 " %" PRIu64, tensor->dtype->name, tensor->begin, tensor->end);
	for (uint32_t i = 0; i < tensor->rank; i++)
		printf(" %" PRIu64, tensor->shape[i]);
	putchar('\n');
}

static void print_verdict(struct file *file)
{
	char error[SAFETENSORS_ERROR_MAX];
	struct safetensors *table = safetensors_read(read_file, file, file->size, "file", error);

	if (!table) {
		printf("refused %s\n", error);
		return;
	}
	printf("taken %zu\n", table->count);
	for (size_t i = 0; i < table->count; i++)
		print_tensor(&table->tensors[i]);
	safetensors_free(table);
}

int main(void)
{
	struct file file;

	while (fread(&file.size, sizeof(file.size), 1, stdin) == 1) {
		/* Exactly as large as the file, so that a sanitizer sees a read beyond the end. */
		file.data = malloc(file.size + !file.size);
		CHECK(file.data && fread(file.data, 1, file.size, stdin) == file.size);
		print_verdict(&file);
		free(file.data);
	}
	return 0;
}
