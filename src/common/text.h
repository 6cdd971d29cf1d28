/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Text from people and files: control characters that must not reach a terminal, and sizes. */
#ifndef COMMON_TEXT_H
#define COMMON_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Returns how many bytes the control character takes that @text begins with, or 0 if it begins
 * with none. Counted are those of C0, DEL, and those of C1, which have two bytes in UTF-8.
 */
size_t control_character(const char *text);

/* Overwrites each control character with question marks, byte by byte. */
void replace_control_characters(char *text);

/*
 * Reads a decimal number of at most @max. Signs, blanks and anything after the number are refused.
 * Returns false, with *number unchanged, if @text is no such number.
 */
bool parse_number(const char *text, uint64_t max, uint64_t *number);

/*
 * Reads a number of bytes with an optional suffix K, M, G or T (powers of 1024). Returns false,
 * with *size unchanged, if @text is no such number, or one of more than 64 bits.
 */
bool parse_size(const char *text, uint64_t *size);

#endif
