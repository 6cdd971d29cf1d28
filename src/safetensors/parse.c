/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes the table of tensors from the text of a header, and checks it. */
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "internal.h"

/* The ends of messages: what to do. */
#define CURE_WRITE_AGAIN "write it again with a current safetensors library"
#define CURE_GET_AGAIN "the file is incomplete or damaged: download or copy it again"

struct parser {
	struct safetensors *table;
	size_t capacity;		/* tensors that table->tensors has room for */
	uint64_t data_size;		/* bytes of the file after the header */
	bool has_metadata;		/* __metadata__ was found */
	const char *file;		/* name, for errors */
	char *error;			/* SAFETENSORS_ERROR_MAX bytes */
};

/* Sets the error, of one tensor or of the whole file. Both functions return false. */
static bool fail(struct parser *parser, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static bool fail_tensor(struct parser *parser, const char *name, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void set_error(struct parser *parser, const char *tensor, const char *format,
		      va_list arguments)
{
	char *error = parser->error;
	int length = snprintf(error, SAFETENSORS_ERROR_MAX, "%.200s: ", parser->file);

	if (tensor)
		length += snprintf(error + length, SAFETENSORS_ERROR_MAX - length,
				   "tensor \"%.100s\": ", tensor);
	vsnprintf(error + length, SAFETENSORS_ERROR_MAX - length, format, arguments);
	/* Names from the file must not control a terminal or make a second line. */
	replace_control_characters(error);
}

static bool fail(struct parser *parser, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	set_error(parser, NULL, format, arguments);
	va_end(arguments);
	return false;
}

static bool fail_tensor(struct parser *parser, const char *name, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	set_error(parser, name, format, arguments);
	va_end(arguments);
	return false;
}

/* ------------------------------------------------------------- one tensor's entry */

static bool set_dtype(struct parser *parser, struct safetensors_tensor *tensor, json_t *entry)
{
	const char *name = json_string_value(json_object_get(entry, "dtype"));

	if (!name)
		return fail_tensor(parser, tensor->name, "no dtype: " CURE_WRITE_AGAIN);
	tensor->dtype = find_dtype(name);
	if (!tensor->dtype)
		return fail_tensor(parser, tensor->name,
				   "dtype \"%.32s\" is not known: convert it to another", name);
	return true;
}

/* Sets *size. Returns false if the value is not a whole number of 0 or more. */
static bool get_size(json_t *value, uint64_t *size)
{
	*size = json_integer_value(value);
	return json_is_integer(value) && json_integer_value(value) >= 0;
}

static bool set_shape(struct parser *parser, struct safetensors_tensor *tensor, json_t *entry)
{
	struct safetensors_storage *storage = parser->table->storage;
	json_t *shape = json_object_get(entry, "shape");
	uint64_t *dimensions = storage->dimensions + storage->dimensions_used;

	if (!json_is_array(shape))
		return fail_tensor(parser, tensor->name, "no shape: " CURE_WRITE_AGAIN);
	if (json_array_size(shape) > RANK_MAX)
		return fail_tensor(parser, tensor->name, "more than %u dimensions: reshape it",
				   RANK_MAX);
	tensor->rank = json_array_size(shape);
	if (tensor->rank > DIMENSIONS_MAX - storage->dimensions_used)
		return fail(parser, "the tensors have more than %u dimensions in all: "
			    "split the file into shards", DIMENSIONS_MAX);
	for (uint32_t i = 0; i < tensor->rank; i++)
		if (!get_size(json_array_get(shape, i), &dimensions[i]))
			return fail_tensor(parser, tensor->name,
					   "dimension %u is not a size: " CURE_WRITE_AGAIN, i);
	tensor->shape = dimensions;
	storage->dimensions_used += tensor->rank;
	return true;
}

/* Offsets in the header count from its end, offsets in the table from the start of the file. */
static bool set_offsets(struct parser *parser, struct safetensors_tensor *tensor, json_t *entry)
{
	json_t *offsets = json_object_get(entry, "data_offsets");
	uint64_t begin, end;

	if (json_array_size(offsets) != 2 || !get_size(json_array_get(offsets, 0), &begin) ||
	    !get_size(json_array_get(offsets, 1), &end))
		return fail_tensor(parser, tensor->name,
				   "data_offsets are not two sizes: " CURE_WRITE_AGAIN);
	if (begin > end)
		return fail_tensor(parser, tensor->name,
				   "its data ends before it begins: " CURE_WRITE_AGAIN);
	if (end > parser->data_size)
		return fail_tensor(parser, tensor->name, "its data ends %llu bytes "
				   "beyond the end of the file: " CURE_GET_AGAIN,
				   (unsigned long long)(end - parser->data_size));
	tensor->begin = parser->table->data_offset + begin;
	tensor->end = parser->table->data_offset + end;
	return true;
}

static bool check_size(struct parser *parser, const struct safetensors_tensor *tensor)
{
	uint64_t size = tensor->end - tensor->begin, bits = tensor->dtype->bits;

	for (uint32_t i = 0; i < tensor->rank; i++)
		if (__builtin_mul_overflow(bits, tensor->shape[i], &bits))
			return fail_tensor(parser, tensor->name,
					   "its shape is larger than any memory: "
					   CURE_WRITE_AGAIN);
	if (bits % 8)
		return fail_tensor(parser, tensor->name, "its elements do not fill whole bytes: "
				   "pad its last dimension");
	if (bits / 8 != size)
		return fail_tensor(parser, tensor->name,
				   "shape and dtype make %llu bytes, its data has %llu: "
				   CURE_WRITE_AGAIN,
				   (unsigned long long)(bits / 8), (unsigned long long)size);
	return true;
}

static json_t *parse_piece(struct span piece)
{
	return json_loadb(piece.text, piece.length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
}

/*
 * Decodes a name into the storage, which has room for it: a decoded string is never longer than its
 * text with the quotes. Returns NULL with the error set on failure.
 */
static const char *store_name(struct parser *parser, struct span key)
{
	struct safetensors_storage *storage = parser->table->storage;
	char *name = storage->names + storage->names_used;
	json_t *string = key.length <= ENTRY_MAX ? parse_piece(key) : NULL;

	if (!string) {
		fail(parser, "the tensor name %.*s is not a JSON string of at most %u bytes: "
		     CURE_WRITE_AGAIN,
		     (int)(key.length < 100 ? key.length : 100), key.text, ENTRY_MAX);
		return NULL;
	}
	memcpy(name, json_string_value(string), json_string_length(string) + 1);
	storage->names_used += json_string_length(string) + 1;
	json_decref(string);
	return name;
}

/* Returns a new tensor at the end of the table, or NULL with the error set. */
static struct safetensors_tensor *add_tensor(struct parser *parser)
{
	struct safetensors *table = parser->table;
	size_t capacity = parser->capacity ? 2 * parser->capacity : 64;
	void *grown;

	if (table->count == TENSORS_MAX) {
		fail(parser, "more than %u tensors: split the file into shards", TENSORS_MAX);
		return NULL;
	}
	if (table->count == parser->capacity) {
		grown = reallocarray(table->tensors, capacity, sizeof(*table->tensors));
		if (!grown) {
			fail(parser, "out of memory");
			return NULL;
		}
		table->tensors = grown;
		parser->capacity = capacity;
	}
	return &table->tensors[table->count++];
}

static bool parse_tensor(struct parser *parser, struct span key, struct span value)
{
	struct safetensors_tensor *tensor;
	const char *name = store_name(parser, key);
	json_t *entry;
	bool ok;

	if (!name)
		return false;
	if (value.length > ENTRY_MAX)
		return fail_tensor(parser, name, "its entry in the header is longer than %u bytes: "
				   CURE_WRITE_AGAIN, ENTRY_MAX);
	entry = parse_piece(value);
	if (!json_is_object(entry)) {
		json_decref(entry);
		return fail_tensor(parser, name, "its entry in the header is not valid JSON "
				   "(or a key occurs twice): " CURE_WRITE_AGAIN);
	}
	tensor = add_tensor(parser);
	if (tensor)
		tensor->name = name;
	ok = tensor && set_dtype(parser, tensor, entry) && set_shape(parser, tensor, entry) &&
	     set_offsets(parser, tensor, entry) && check_size(parser, tensor);
	json_decref(entry);
	return ok;
}

/* ---------------------------------------------------------------- __metadata__ */

static bool check_metadata_string(struct span text)
{
	json_t *string = text.length <= METADATA_VALUE_MAX ? parse_piece(text) : NULL;
	bool ok = json_is_string(string);

	json_decref(string);
	return ok;
}

static bool check_metadata_member(void *argument, struct span key, struct span value)
{
	(void)argument;
	return check_metadata_string(key) && check_metadata_string(value);
}

static bool check_metadata(struct parser *parser, struct span value)
{
	if (parser->has_metadata)
		return fail(parser, "__metadata__ occurs twice: " CURE_WRITE_AGAIN);
	parser->has_metadata = true;
	if (walk_object(value, check_metadata_member, NULL) != WALK_DONE)
		return fail(parser, "__metadata__ is not a map of strings "
			    "(of at most %u MiB each) to strings: " CURE_WRITE_AGAIN,
			    METADATA_VALUE_MAX >> 20);
	return true;
}

/* --------------------------------------------------------------- the whole table */

static bool parse_member(void *argument, struct span key, struct span value)
{
	static const char metadata[] = "\"__metadata__\"";

	if (key.length == sizeof(metadata) - 1 && !memcmp(key.text, metadata, key.length))
		return check_metadata(argument, value);
	return parse_tensor(argument, key, value);
}

static int compare_names(const void *a, const void *b)
{
	const struct safetensors_tensor *x = a, *y = b;

	return strcmp(x->name, y->name);
}

/* Tensors without data at one offset are sorted by name, so that the order is always the same. */
static int compare_offsets(const void *a, const void *b)
{
	const struct safetensors_tensor *x = a, *y = b;

	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	if (x->end != y->end)
		return x->end < y->end ? -1 : 1;
	return compare_names(a, b);
}

static void sort(struct safetensors *table, int (*compare)(const void *, const void *))
{
	/* Without tensors the array is NULL, which qsort() does not allow. */
	if (table->count)
		qsort(table->tensors, table->count, sizeof(*table->tensors), compare);
}

static bool check_names(struct parser *parser)
{
	struct safetensors *table = parser->table;

	sort(table, compare_names);
	for (size_t i = 1; i < table->count; i++)
		if (!strcmp(table->tensors[i - 1].name, table->tensors[i].name))
			return fail_tensor(parser, table->tensors[i].name,
					   "occurs twice: " CURE_WRITE_AGAIN);
	return true;
}

/* The format allows neither gaps nor overlaps: each byte after the header is in one tensor. */
static bool check_layout(struct parser *parser)
{
	struct safetensors *table = parser->table;
	uint64_t position = table->data_offset, end = table->data_offset + parser->data_size;

	sort(table, compare_offsets);
	for (size_t i = 0; i < table->count; i++) {
		const struct safetensors_tensor *tensor = &table->tensors[i];

		if (tensor->begin < position)
			return fail_tensor(parser, tensor->name,
					   "overlaps tensor \"%.100s\": " CURE_WRITE_AGAIN,
					   tensor[-1].name);
		if (tensor->begin > position)
			return fail_tensor(parser, tensor->name,
					   "there is a gap of %llu bytes before it: "
					   CURE_WRITE_AGAIN,
					   (unsigned long long)(tensor->begin - position));
		position = tensor->end;
	}
	if (position != end)
		return fail(parser, "%llu bytes after the last tensor belong to no tensor: "
			    CURE_WRITE_AGAIN,
			    (unsigned long long)(end - position));
	return true;
}

static struct safetensors *new_table(size_t header_length)
{
	struct safetensors *table = calloc(1, sizeof(*table));

	if (!table)
		return NULL;
	table->storage = calloc(1, sizeof(*table->storage));
	if (table->storage) {
		/*
		 * Both arrays are as large as they can become: a dimension takes at least two bytes
		 * of text, like "1,". Pages that are never touched cost nothing.
		 */
		table->storage->names = malloc(header_length + 1);
		table->storage->dimensions = calloc(header_length / 2 + 1, sizeof(uint64_t));
	}
	if (!table->storage || !table->storage->names || !table->storage->dimensions) {
		safetensors_free(table);
		return NULL;
	}
	return table;
}

void safetensors_free(struct safetensors *table)
{
	if (!table)
		return;
	if (table->storage) {
		free(table->storage->names);
		free(table->storage->dimensions);
	}
	free(table->storage);
	free(table->tensors);
	free(table);
}

static bool parse_header(struct parser *parser, struct span header)
{
	if (!is_utf8(header.text, header.length))
		return fail(parser, "the header is not UTF-8: " CURE_GET_AGAIN);
	switch (walk_object(header, parse_member, parser)) {
	case WALK_SYNTAX_ERROR:
		return fail(parser, "the header is not a JSON object: "
			    "not a safetensors file, or damaged: download or copy it again");
	case WALK_ENDED_BY_FUNCTION:
		return false;
	case WALK_DONE:
		break;
	}
	return check_names(parser) && check_layout(parser);
}

/* The limit of the format is checked first, because the error names that if a file breaks both. */
static bool check_length(struct parser *parser, uint64_t length, uint64_t file_size)
{
	if (length > FORMAT_HEADER_MAX)
		return fail(parser, "header of %llu bytes, the format allows %u: "
			    "not a safetensors file, or damaged: download or copy it again",
			    (unsigned long long)length, FORMAT_HEADER_MAX);
	if (file_size < 8 || length > file_size - 8)
		return fail(parser,
			    "header of %llu bytes, but the file has only %llu: " CURE_GET_AGAIN,
			    (unsigned long long)length, (unsigned long long)file_size);
	if (length > HEADER_MAX)
		return fail(parser, "header of %llu bytes, this program takes at most %u: "
			    "split the file into shards",
			    (unsigned long long)length, HEADER_MAX);
	return true;
}

struct safetensors *safetensors_parse(const char *header, size_t length, uint64_t file_size,
				      const char *file, char *error)
{
	struct parser parser = { .file = file, .error = error };

	if (!check_length(&parser, length, file_size))
		return NULL;
	parser.table = new_table(length);
	if (!parser.table) {
		fail(&parser, "out of memory");
		return NULL;
	}
	parser.table->data_offset = 8 + length;
	parser.data_size = file_size - parser.table->data_offset;
	if (!parse_header(&parser, (struct span){ header, length })) {
		safetensors_free(parser.table);
		return NULL;
	}
	return parser.table;
}

/* Returns the number that 8 bytes hold, the lowest first. */
static uint64_t little_endian(const unsigned char *bytes)
{
	uint64_t value = 0;

	for (int i = 7; i >= 0; i--)
		value = value << 8 | bytes[i];
	return value;
}

struct safetensors *safetensors_read(safetensors_reader *reader, void *source, uint64_t file_size,
				     const char *file, char *error)
{
	struct parser parser = { .file = file, .error = error };
	struct safetensors *table = NULL;
	unsigned char prefix[8];
	uint64_t length;
	char *header;
	int64_t got = reader(source, prefix, sizeof(prefix), 0);

	*error = '\0';
	if (got < 0)
		return NULL;
	if (got < (int64_t)sizeof(prefix)) {
		fail(&parser, "only %lld bytes: not a safetensors file, or " CURE_GET_AGAIN,
		     (long long)got);
		return NULL;
	}
	length = little_endian(prefix);
	if (!check_length(&parser, length, file_size))
		return NULL;
	header = malloc(length + 1);
	if (!header) {
		fail(&parser, "out of memory");
		return NULL;
	}
	got = reader(source, header, length, sizeof(prefix));
	if (got == (int64_t)length)
		table = safetensors_parse(header, length, file_size, file, error);
	else if (got >= 0)
		fail(&parser, "was truncated while its header was read: start again");
	free(header);
	return table;
}
