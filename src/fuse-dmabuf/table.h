/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Cells of the tables that commands print. */
#ifndef TABLE_H
#define TABLE_H

#include <stdint.h>

/* Writes a number of bytes like "1.5G" into @text, and returns that. */
const char *size_text(uint64_t bytes, char text[32]);

/*
 * Prints the last cell of a line and a newline, with "?" in the place of each control character,
 * which a terminal would obey.
 */
void print_last_cell(const char *text);

#endif
