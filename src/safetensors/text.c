/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finds the outer structure of JSON text. Each key and value is then parsed alone by jansson, so
 * that a header never becomes one tree in memory, which is twenty times as large as the text.
 */
#include "internal.h"

static bool is_continuation(unsigned char byte)
{
	return (byte & 0xc0) == 0x80;
}

/* Returns the length of the well-formed sequence at @text (Unicode 15, table 3-7), or 0 if none. */
static size_t sequence_length(const unsigned char *text, size_t left)
{
	unsigned char first = text[0], low = 0x80, high = 0xbf;
	size_t length;

	if (first < 0x80)
		return 1;
	if (first < 0xc2 || first > 0xf4)
		return 0;
	length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
	if (left < length)
		return 0;
	if (first == 0xe0)
		low = 0xa0;	/* overlong */
	else if (first == 0xed)
		high = 0x9f;	/* surrogates */
	else if (first == 0xf0)
		low = 0x90;	/* overlong */
	else if (first == 0xf4)
		high = 0x8f;	/* beyond U+10FFFF */
	if (text[1] < low || text[1] > high)
		return 0;
	for (size_t i = 2; i < length; i++)
		if (!is_continuation(text[i]))
			return 0;
	return length;
}

bool is_utf8(const char *text, size_t length)
{
	const unsigned char *bytes = (const unsigned char *)text;
	size_t step;

	for (size_t i = 0; i < length; i += step) {
		step = sequence_length(bytes + i, length - i);
		if (!step)
			return false;
	}
	return true;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_spaces(struct span *rest)
{
	while (rest->length && is_space(*rest->text)) {
		rest->text++;
		rest->length--;
	}
}

/* Skips the character @c. Returns false if the text does not begin with it. */
static bool skip_character(struct span *rest, char c)
{
	if (!rest->length || *rest->text != c)
		return false;
	rest->text++;
	rest->length--;
	return true;
}

/* Returns the length of the string at the start of @rest with its quotes, or 0 if it has no end. */
static size_t string_length(struct span rest)
{
	for (size_t i = 1; i < rest.length; i++) {
		if (rest.text[i] == '\\')
			i++;
		else if (rest.text[i] == '"')
			return i + 1;
	}
	return 0;
}

/* Returns the length of the object or array at the start of @rest, or 0 if it has no end. */
static size_t nested_length(struct span rest)
{
	size_t depth = 0, i = 0;

	while (i < rest.length) {
		char c = rest.text[i];

		if (c == '"') {
			struct span string = { rest.text + i, rest.length - i };
			size_t length = string_length(string);

			if (!length)
				return 0;
			i += length;
			continue;
		}
		i++;
		if (c == '{' || c == '[')
			depth++;
		else if ((c == '}' || c == ']') && --depth == 0)
			return i;
	}
	return 0;
}

static size_t scalar_length(struct span rest)
{
	size_t i = 0;

	while (i < rest.length && rest.text[i] != ',' && rest.text[i] != '}' &&
	       rest.text[i] != ']' && !is_space(rest.text[i]))
		i++;
	return i;
}

static bool take_value(struct span *rest, struct span *value)
{
	size_t length = 0;

	if (rest->length && *rest->text == '"')
		length = string_length(*rest);
	else if (rest->length && (*rest->text == '{' || *rest->text == '['))
		length = nested_length(*rest);
	else
		length = scalar_length(*rest);
	*value = (struct span){ rest->text, length };
	rest->text += length;
	rest->length -= length;
	return length != 0;
}

static bool take_member(struct span *rest, struct span *key, struct span *value)
{
	skip_spaces(rest);
	if (!rest->length || *rest->text != '"' || !take_value(rest, key))
		return false;
	skip_spaces(rest);
	if (!skip_character(rest, ':'))
		return false;
	skip_spaces(rest);
	return take_value(rest, value);
}

/* Returns how a walk ends after the object: nothing but spaces may follow. */
static enum walk check_end(struct span rest)
{
	skip_spaces(&rest);
	return rest.length ? WALK_SYNTAX_ERROR : WALK_DONE;
}

enum walk walk_object(struct span rest, member_function *function, void *argument)
{
	struct span key, value;

	if (!skip_character(&rest, '{'))
		return WALK_SYNTAX_ERROR;
	skip_spaces(&rest);
	if (skip_character(&rest, '}'))
		return check_end(rest);
	do {
		if (!take_member(&rest, &key, &value))
			return WALK_SYNTAX_ERROR;
		if (!function(argument, key, value))
			return WALK_ENDED_BY_FUNCTION;
		skip_spaces(&rest);
	} while (skip_character(&rest, ','));
	return skip_character(&rest, '}') ? check_end(rest) : WALK_SYNTAX_ERROR;
}
