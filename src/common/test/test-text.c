/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tests of text.c: control characters, numbers and sizes. */
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "common/text.h"

static void control_characters_are_found_with_their_length(void)
{
	CHECK_EQUAL(control_character(""), 0);
	CHECK_EQUAL(control_character("a\n"), 0);
	CHECK_EQUAL(control_character(" "), 0);
	CHECK_EQUAL(control_character("~"), 0);
	CHECK_EQUAL(control_character("\001"), 1);
	CHECK_EQUAL(control_character("\n"), 1);
	CHECK_EQUAL(control_character("\033[2J"), 1);
	CHECK_EQUAL(control_character("\037"), 1);
	CHECK_EQUAL(control_character("\177"), 1);
}

static void only_c1_is_taken_of_characters_of_two_bytes(void)
{
	CHECK_EQUAL(control_character("\xc2\x80"), 2);
	CHECK_EQUAL(control_character("\xc2\x9f"), 2);
	CHECK_EQUAL(control_character("\xc2\xa0"), 0);
	CHECK_EQUAL(control_character("\xc3\x9b"), 0);
	CHECK_EQUAL(control_character("\x9b"), 0);
	/* The text ends inside of a character. */
	CHECK_EQUAL(control_character("\xc2"), 0);
}

static void control_characters_are_replaced_byte_by_byte(void)
{
	char text[] = "a\033[2J\n\xc2\x9b" "b\xc3\xa4\177";
	char empty[] = "";

	replace_control_characters(text);
	CHECK(!strcmp(text, "a?[2J???b\xc3\xa4?"));
	replace_control_characters(empty);
	CHECK(!*empty);
}

static void numbers_are_decimal_and_at_most_the_maximum(void)
{
	uint64_t number = 0;

	CHECK(parse_number("0", 0, &number) && number == 0);
	CHECK(parse_number("10", 10, &number) && number == 10);
	CHECK(parse_number("010", 10, &number) && number == 10);
	CHECK(parse_number("18446744073709551615", UINT64_MAX, &number) && number == UINT64_MAX);
	CHECK(!parse_number("11", 10, &number));
	CHECK(!parse_number("18446744073709551616", UINT64_MAX, &number));
	CHECK(!parse_number("99999999999999999999999", UINT64_MAX, &number));
}

static void nothing_but_digits_is_a_number(void)
{
	static const char *const texts[] = {
		"", " ", "-1", "+1", " 1", "1 ", "1\n", "1.0", "1e3", "0x10", "1K", "one",
	};
	uint64_t number = 7;

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		CHECK(!parse_number(texts[i], UINT64_MAX, &number));
	CHECK_EQUAL(number, 7);
}

static void sizes_have_a_suffix_or_none(void)
{
	uint64_t size = 0;

	CHECK(parse_size("0", &size) && size == 0);
	CHECK(parse_size("4096", &size) && size == 4096);
	CHECK(parse_size("1K", &size) && size == 1024);
	CHECK(parse_size("4K", &size) && size == 4096);
	CHECK(parse_size("3M", &size) && size == 3ull << 20);
	CHECK(parse_size("3G", &size) && size == 3ull << 30);
	CHECK(parse_size("3T", &size) && size == 3ull << 40);
	CHECK(parse_size("0T", &size) && size == 0);
}

static void sizes_have_at_most_64_bits(void)
{
	uint64_t size = 7;

	CHECK(!parse_size("18446744073709551616", &size));
	CHECK(!parse_size("18014398509481984K", &size));
	CHECK(!parse_size("16777216T", &size));
	CHECK_EQUAL(size, 7);
	CHECK(parse_size("18446744073709551615", &size) && size == UINT64_MAX);
	CHECK(parse_size("18014398509481983K", &size) && size == UINT64_MAX << 10);
	CHECK(parse_size("16777215T", &size) && size == UINT64_MAX << 40);
}

static void nothing_else_is_a_size(void)
{
	static const char *const texts[] = {
		"", "K", "-1K", "+1K", " 1K", "1 K", "1k", "1KB", "1KK", "1P", "1.5M", "1K ",
		" 1", "+1", "-1", "1x", "0x10",
	};
	uint64_t size = 7;

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		CHECK(!parse_size(texts[i], &size));
	CHECK_EQUAL(size, 7);
}

int main(void)
{
	RUN(control_characters_are_found_with_their_length);
	RUN(only_c1_is_taken_of_characters_of_two_bytes);
	RUN(control_characters_are_replaced_byte_by_byte);
	RUN(numbers_are_decimal_and_at_most_the_maximum);
	RUN(nothing_but_digits_is_a_number);
	RUN(sizes_have_a_suffix_or_none);
	RUN(sizes_have_at_most_64_bits);
	RUN(nothing_else_is_a_size);
	return 0;
}
