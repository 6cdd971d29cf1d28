/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes the table of tensors from the text of a header, and checks it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "internal.h"

/* The ends of messages: what to do. */
#define CURE_WRITE_AGAIN "write it again with a current safetensors library"
#define CURE_NOT_SAFETENSORS "not a safetensors file, or damaged: download or copy it again"
#define CURE_GET_AGAIN "the file is incomplete or damaged: download or copy it again"

struct parser {
	struct safetensors *table;
	struct memory memory;		/* for all that the parser allocates */
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

/* Returns false. For a failed allocation, of the parser or of yyjson. */
static bool fail_memory(struct parser *parser)
{
	if (parser->memory.is_exceeded)
		return fail(parser, "its header takes more than %u MiB of memory: "
			    "split the file into shards", MEMORY_MAX_MIB);
	return fail(parser, "out of memory");
}

/* ------------------------------------------------------------- one tensor's entry */

/* The members of an entry that the format names, or NULL. */
struct entry {
	yyjson_val *dtype;
	yyjson_val *shape;
	yyjson_val *offsets;
};

/* Returns where the member belongs, or NULL if the format does not name it. */
static yyjson_val **find_member(struct entry *entry, yyjson_val *key)
{
	if (yyjson_equals_str(key, "dtype"))
		return &entry->dtype;
	if (yyjson_equals_str(key, "shape"))
		return &entry->shape;
	if (yyjson_equals_str(key, "data_offsets"))
		return &entry->offsets;
	return NULL;
}

/* Returns true if the value has more than so many levels of objects and arrays. */
static bool is_deeper(yyjson_val *value, unsigned levels)
{
	yyjson_val *key, *member;
	size_t i, count;

	if (!yyjson_is_ctn(value))
		return false;
	if (!levels)
		return true;
	yyjson_arr_foreach(value, i, count, member)
		if (is_deeper(member, levels - 1))
			return true;
	yyjson_obj_foreach(value, i, count, key, member)
		if (is_deeper(member, levels - 1))
			return true;
	return false;
}

static bool read_entry(struct parser *parser, const char *name, yyjson_val *object,
		       struct entry *entry)
{
	yyjson_val *key, *value, **member;
	size_t i, count;

	if (!yyjson_is_obj(object))
		return fail_tensor(parser, name, "its entry in the header is not an object: "
				   CURE_WRITE_AGAIN);
	yyjson_obj_foreach(object, i, count, key, value) {
		member = find_member(entry, key);
		if (member && *member)
			return fail_tensor(parser, name, "its entry in the header has \"%s\" "
					   "twice: " CURE_WRITE_AGAIN, yyjson_get_str(key));
		if (member)
			*member = value;
		else if (is_deeper(value, DEPTH_MAX - 2))
			return fail_tensor(parser, name, "its entry in the header has more than "
					   "%u levels: " CURE_WRITE_AGAIN, DEPTH_MAX);
	}
	return true;
}

static bool set_dtype(struct parser *parser, struct safetensors_tensor *tensor, yyjson_val *value)
{
	const char *name = yyjson_get_str(value);

	if (!name)
		return fail_tensor(parser, tensor->name, "no dtype: " CURE_WRITE_AGAIN);
	tensor->dtype = find_dtype(name, yyjson_get_len(value));
	if (!tensor->dtype)
		return fail_tensor(parser, tensor->name,
				   "dtype \"%.32s\" is not known: convert it to another", name);
	return true;
}

/*
 * Sets *size. Returns false if the value is not an integer of 0 to 2^64 - 1: as for the reference
 * implementation, 1.0 and -0 are none.
 */
static bool get_size(yyjson_val *value, uint64_t *size)
{
	*size = yyjson_get_uint(value);
	return yyjson_is_uint(value);
}

static bool set_shape(struct parser *parser, struct safetensors_tensor *tensor, yyjson_val *shape)
{
	struct safetensors_storage *storage = parser->table->storage;
	uint64_t *dimensions = storage->dimensions + storage->dimensions_used;
	yyjson_val *value;
	size_t i, rank;

	if (!yyjson_is_arr(shape))
		return fail_tensor(parser, tensor->name, "no shape: " CURE_WRITE_AGAIN);
	yyjson_arr_foreach(shape, i, rank, value)
		if (!get_size(value, &dimensions[i]))
			return fail_tensor(parser, tensor->name,
					   "dimension %zu is not a size: " CURE_WRITE_AGAIN, i);
	tensor->shape = dimensions;
	tensor->rank = rank;
	storage->dimensions_used += rank;
	return true;
}

/* Offsets in the header count from its end, offsets in the table from the start of the file. */
static bool set_offsets(struct parser *parser, struct safetensors_tensor *tensor,
			yyjson_val *offsets)
{
	uint64_t begin, end;

	if (yyjson_arr_size(offsets) != 2 || !get_size(yyjson_arr_get_first(offsets), &begin) ||
	    !get_size(yyjson_arr_get_last(offsets), &end))
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

/*
 * The product of the dimensions must fit in 64 bits in their order: the reference implementation
 * takes the shape 0 2^32 2^32, and refuses 2^32 2^32 0.
 */
static bool check_size(struct parser *parser, const struct safetensors_tensor *tensor)
{
	uint64_t size = tensor->end - tensor->begin, elements = 1, bits;
	bool is_overflow = false;

	for (uint32_t i = 0; i < tensor->rank && !is_overflow; i++)
		is_overflow = __builtin_mul_overflow(elements, tensor->shape[i], &elements);
	if (is_overflow || __builtin_mul_overflow(elements, tensor->dtype->bits, &bits))
		return fail_tensor(parser, tensor->name, "its shape is larger than any memory: "
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

static bool add_tensor(struct parser *parser, yyjson_val *key, yyjson_val *value)
{
	struct safetensors *table = parser->table;
	struct safetensors_tensor *tensor = &table->tensors[table->count];
	struct entry entry = { 0 };

	tensor->name = yyjson_get_str(key);
	if (strlen(tensor->name) != yyjson_get_len(key))
		return fail_tensor(parser, tensor->name,
				   "its name contains NUL (U+0000): rename it");
	table->count++;
	return read_entry(parser, tensor->name, value, &entry) &&
	       set_dtype(parser, tensor, entry.dtype) && set_shape(parser, tensor, entry.shape) &&
	       set_offsets(parser, tensor, entry.offsets) && check_size(parser, tensor);
}

/* --------------------------------------------------------------- the whole table */

static bool is_map_of_strings(yyjson_val *value)
{
	yyjson_val *key, *member;
	size_t i, count;

	yyjson_obj_foreach(value, i, count, key, member)
		if (!yyjson_is_str(member))
			return false;
	return yyjson_is_obj(value);
}

static bool check_metadata(struct parser *parser, yyjson_val *value)
{
	if (parser->has_metadata)
		return fail(parser, "__metadata__ occurs twice: " CURE_WRITE_AGAIN);
	parser->has_metadata = true;
	if (!yyjson_is_null(value) && !is_map_of_strings(value))
		return fail(parser, "__metadata__ is not a map of strings to strings: "
			    CURE_WRITE_AGAIN);
	return true;
}

/* Returns how many dimensions all tensors have together. */
static size_t count_dimensions(yyjson_val *header)
{
	yyjson_val *name, *entry, *key, *value;
	size_t i, j, entries, members, dimensions = 0;

	yyjson_obj_foreach(header, i, entries, name, entry)
		yyjson_obj_foreach(entry, j, members, key, value)
			if (yyjson_equals_str(key, "shape"))
				dimensions += yyjson_arr_size(value);
	return dimensions;
}

static bool allocate_table(struct parser *parser, yyjson_val *header)
{
	struct safetensors *table = parser->table;

	/* One element too much each, because an allocation of 0 bytes may return NULL. */
	table->tensors = memory_allocate(&parser->memory, (yyjson_obj_size(header) + 1) *
							  sizeof(*table->tensors));
	table->storage->dimensions = memory_allocate(&parser->memory,
						     (count_dimensions(header) + 1) *
						     sizeof(uint64_t));
	return (table->tensors && table->storage->dimensions) || fail_memory(parser);
}

static bool fill_table(struct parser *parser, yyjson_val *header)
{
	yyjson_val *key, *value;
	size_t i, count;
	bool ok;

	if (!yyjson_is_obj(header))
		return fail(parser, "the header is not a JSON object: " CURE_NOT_SAFETENSORS);
	if (!allocate_table(parser, header))
		return false;
	yyjson_obj_foreach(header, i, count, key, value) {
		if (yyjson_equals_str(key, "__metadata__"))
			ok = check_metadata(parser, value);
		else
			ok = add_tensor(parser, key, value);
		if (!ok)
			return false;
	}
	return true;
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

void safetensors_free(struct safetensors *table)
{
	if (!table)
		return;
	if (table->storage) {
		free(table->storage->text);
		free(table->storage->dimensions);
	}
	free(table->storage);
	free(table->tensors);
	free(table);
}

/* Returns NULL with the error set on failure. Strings of the tree are pieces of @text. */
static yyjson_doc *read_json(struct parser *parser, char *text, size_t length)
{
	yyjson_alc allocator = memory_for_json(&parser->memory);
	yyjson_read_err error;
	yyjson_doc *json = yyjson_read_opts(text, length, YYJSON_READ_INSITU, &allocator, &error);

	if (!json && error.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
		fail_memory(parser);
	else if (!json)
		fail(parser, "the header is not JSON (byte %zu: %s): " CURE_NOT_SAFETENSORS,
		     error.pos, error.msg);
	return json;
}

/*
 * The tree is freed before the table is sorted, because qsort() allocates memory that is not
 * counted, but less than the tree.
 */
static bool parse_text(struct parser *parser, char *text, size_t length)
{
	yyjson_doc *json = read_json(parser, text, length);
	bool ok = json && fill_table(parser, yyjson_doc_get_root(json));

	yyjson_doc_free(json);
	return ok && check_names(parser) && check_layout(parser);
}

/* The limit of the format is checked first, because the error names that if a file breaks both. */
static bool check_length(struct parser *parser, uint64_t length, uint64_t file_size)
{
	if (length > FORMAT_HEADER_MAX)
		return fail(parser, "header of %llu bytes, the format allows %u: "
			    CURE_NOT_SAFETENSORS,
			    (unsigned long long)length, FORMAT_HEADER_MAX);
	if (file_size < 8 || length > file_size - 8)
		return fail(parser,
			    "header of %llu bytes, but the file has only %llu: " CURE_GET_AGAIN,
			    (unsigned long long)length, (unsigned long long)file_size);
	return true;
}

/*
 * Makes an empty table with room for the text of the header, which yyjson wants to be followed by
 * zeroes. Returns false with the error set on failure; the caller frees the table in any case.
 */
static bool begin_table(struct parser *parser, uint64_t length, uint64_t file_size)
{
	struct safetensors *table;

	if (!check_length(parser, length, file_size))
		return false;
	table = calloc(1, sizeof(*table));
	parser->table = table;
	if (!table)
		return fail_memory(parser);
	table->storage = calloc(1, sizeof(*table->storage));
	if (table->storage)
		table->storage->text = memory_allocate(&parser->memory,
						       length + YYJSON_PADDING_SIZE);
	if (!table->storage || !table->storage->text)
		return fail_memory(parser);
	memset(table->storage->text + length, 0, YYJSON_PADDING_SIZE);
	table->data_offset = 8 + length;
	parser->data_size = file_size - table->data_offset;
	return true;
}

/* Returns the table, or frees it and returns NULL if there was an error. */
static struct safetensors *end_table(struct parser *parser, bool ok)
{
	if (ok)
		return parser->table;
	safetensors_free(parser->table);
	return NULL;
}

static struct parser new_parser(const char *file, char *error)
{
	return (struct parser){
		.memory.left = (size_t)MEMORY_MAX_MIB << 20,
		.file = file,
		.error = error,
	};
}

struct safetensors *safetensors_parse(const char *header, size_t length, uint64_t file_size,
				      const char *file, char *error)
{
	struct parser parser = new_parser(file, error);
	bool ok = begin_table(&parser, length, file_size);

	if (ok) {
		memcpy(parser.table->storage->text, header, length);
		ok = parse_text(&parser, parser.table->storage->text, length);
	}
	return end_table(&parser, ok);
}

/* Returns the number that 8 bytes hold, the lowest first. */
static uint64_t little_endian(const unsigned char *bytes)
{
	uint64_t value = 0;

	for (int i = 7; i >= 0; i--)
		value = value << 8 | bytes[i];
	return value;
}

/* Reads the header behind its length and parses it. Leaves the error as it is if @reader fails. */
static bool read_header(struct parser *parser, safetensors_reader *reader, void *source,
			uint64_t length)
{
	char *text = parser->table->storage->text;
	int64_t got = reader(source, text, length, 8);

	if (got < 0)
		return false;
	if (got < (int64_t)length)
		return fail(parser, "was truncated while its header was read: start again");
	return parse_text(parser, text, length);
}

struct safetensors *safetensors_read(safetensors_reader *reader, void *source, uint64_t file_size,
				     const char *file, char *error)
{
	struct parser parser = new_parser(file, error);
	unsigned char prefix[8];
	uint64_t length;
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
	return end_table(&parser, begin_table(&parser, length, file_size) &&
				  read_header(&parser, reader, source, length));
}
