/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fuzz-header SEED COUNT: feeds the safetensors parser with headers that are damaged at random. A
 * table that the parser returns must be as safetensors.h says; for a header that it refuses, the
 * error must be one line of text. Some allocations of the parser fail, for which the program is
 * linked with --wrap.
 */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "safetensors.h"

#define HEADER_MAX 4096	/* bytes of a damaged header */

static unsigned long long random_state;

static size_t random_below(size_t limit)
{
	return next_random(&random_state) % limit;
}

/* Allocations until one fails; none fails if 0. */
static unsigned allocations_left;

static bool is_to_fail(void)
{
	return allocations_left && --allocations_left == 0;
}

void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

void *__wrap_calloc(size_t count, size_t size)
{
	return is_to_fail() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return is_to_fail() ? NULL : __real_realloc(old, size);
}

static const char *const headers[] = {
	"{}",
	" {\"__metadata__\":null}",
	"{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}  ",
	"{\"__metadata__\":{\"format\":\"pt\",\"\\u00e9\":\"\\ud83d\\ude00\"},"
	"\"x\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]},"
	"\"y\":{\"dtype\":\"BF16\",\"shape\":[1,3],\"data_offsets\":[1,7]},"
	"\"z\":{\"dtype\":\"F4\",\"shape\":[18],\"data_offsets\":[7,16]}}",
	"{\"n\\\"m\":{\"shape\":[0,9],\"dtype\":\"I64\",\"data_offsets\":[0,0],"
	"\"more\":[{}, null, true, 1.5e3]},"
	" \"\xc3\xa9\" : {\"dtype\":\"C64\",\"shape\":[2],\"data_offsets\":[0,16]} }",
};

static const char *const pieces[] = {
	"{", "}", "[", "]", "\"", "\\", ",", ":", "0", "-1", "1", "16",
	"9223372036854775807", "9223372036854775808", "1e9", "null",
	"\"a\"", "\"dtype\"", "\"shape\"", "\"data_offsets\"", "\"__metadata__\"", "\"F32\"",
	"\\u0000", "\xff", "\xed\xa0\x80", " ", "\n",
};

static size_t insert(char *text, size_t length, size_t at, const char *piece, size_t size)
{
	if (length + size > HEADER_MAX)
		return length;
	memmove(text + at + size, text + at, length - at);
	memcpy(text + at, piece, size);
	return length + size;
}

static size_t damage(char *text, size_t length)
{
	size_t at = random_below(length + 1), size = random_below(length - at + 1);
	const char *piece = pieces[random_below(sizeof(pieces) / sizeof(*pieces))];

	switch (random_below(5)) {
	case 0:			/* change a byte */
		if (at < length)
			text[at] = random_below(256);
		return length;
	case 1:			/* remove a part */
		size = size < 16 ? size : random_below(16);
		memmove(text + at, text + at + size, length - at - size);
		return length - size;
	case 2:			/* cut the end off */
		return random_below(8) ? length : at;
	case 3: {		/* repeat a part */
		char copy[HEADER_MAX];

		memcpy(copy, text + at, size);
		return insert(text, length, random_below(length + 1), copy, size);
	}
	default:		/* insert a piece */
		return insert(text, length, at, piece, strlen(piece));
	}
}

static void check_accepted(const struct safetensors *table, size_t length, uint64_t file_size)
{
	uint64_t position = 8 + length;

	CHECK(table->data_offset == position);
	for (size_t i = 0; i < table->count; i++) {
		const struct safetensors_tensor *tensor = &table->tensors[i];
		uint64_t bits = tensor->dtype->bits;

		CHECK(tensor->begin == position && tensor->end >= position);
		for (uint32_t d = 0; d < tensor->rank; d++)
			bits *= tensor->shape[d];
		CHECK(bits == 8 * (tensor->end - tensor->begin));
		for (size_t j = 0; j < i; j++)
			CHECK(strcmp(tensor->name, table->tensors[j].name));
		position = tensor->end;
	}
	CHECK(position == file_size);
}

static unsigned long out_of_memory;	/* headers refused for this reason */

static void check_refused(const char *error)
{
	CHECK(!strncmp(error, "file: ", 6));
	CHECK(strlen(error) < SAFETENSORS_ERROR_MAX && !strpbrk(error, "\n\r\033"));
	if (strstr(error, "out of memory"))
		out_of_memory++;
}

/*
 * Parses a copy of the header on the heap without a NUL at its end, so that a sanitizer sees a read
 * beyond the end. Returns true if the parser accepts the header.
 */
static bool try_header(const char *text, size_t length)
{
	char error[SAFETENSORS_ERROR_MAX] = "", *copy = malloc(length ? length : 1);
	uint64_t file_size = 8 + length + (random_below(4) ? 16 : random_below(20));
	struct safetensors *table;

	CHECK(copy);
	memcpy(copy, text, length);
	/* The parser makes six allocations, or more if the tree of yyjson grows. */
	allocations_left = random_below(16) ? 0 : 1 + random_below(7);
	table = safetensors_parse(copy, length, file_size, "file", error);
	if (table)
		check_accepted(table, length, file_size);
	else
		check_refused(error);
	free(copy);
	safetensors_free(table);
	return table;
}

int main(int argc, char **argv)
{
	unsigned long accepted = 0, count;

	if (argc != 3)
		return 2;
	random_state = strtoull(argv[1], NULL, 0) * 2 + 1;
	count = strtoul(argv[2], NULL, 0);
	for (unsigned long i = 0; i < count; i++) {
		const char *header = headers[random_below(sizeof(headers) / sizeof(*headers))];
		char text[HEADER_MAX];
		size_t length = strlen(header);

		memcpy(text, header, length);
		for (size_t n = random_below(4); n; n--)
			length = damage(text, length);
		accepted += try_header(text, length);
	}
	printf("%lu of %lu headers accepted, for %lu memory failed\n", accepted, count,
	       out_of_memory);
	/* A parser that refuses everything would prove nothing. */
	return accepted < count / 100 || accepted > count / 2 || out_of_memory < count / 100;
}
