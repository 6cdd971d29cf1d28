/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Control characters and numbers in text. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

size_t control_character(const char *text)
{
	const unsigned char *bytes = (const unsigned char *)text;

	if (bytes[0] == 0xc2 && bytes[1] >= 0x80 && bytes[1] <= 0x9f)
		return 2;
	return (bytes[0] && bytes[0] < ' ') || bytes[0] == 0x7f;
}

void replace_control_characters(char *text)
{
	for (; *text; text++)
		memset(text, '?', control_character(text));
}

/* Returns what follows the number, or NULL if @text does not begin with a number of 64 bits. */
static const char *skip_number(const char *text, uint64_t *number)
{
	char *end;

	/* strtoull() would accept a sign and leading blanks. */
	if (*text < '0' || *text > '9')
		return NULL;
	errno = 0;
	*number = strtoull(text, &end, 10);
	return errno ? NULL : end;
}

bool parse_number(const char *text, uint64_t max, uint64_t *number)
{
	uint64_t value;
	const char *end = skip_number(text, &value);

	if (!end || *end || value > max)
		return false;
	*number = value;
	return true;
}

bool parse_size(const char *text, uint64_t *size)
{
	static const char suffixes[] = "KMGT";
	const char *suffix, *end;
	unsigned int shift = 0;
	uint64_t value;

	end = skip_number(text, &value);
	if (!end)
		return false;
	if (*end) {
		suffix = strchr(suffixes, *end);
		if (!suffix || end[1])
			return false;
		shift = 10 * (unsigned int)(suffix - suffixes + 1);
	}
	if (value > UINT64_MAX >> shift)
		return false;
	*size = value << shift;
	return true;
}
