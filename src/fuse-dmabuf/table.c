/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Cells of the tables that commands print. */
#include <stdio.h>

#include "common/text.h"
#include "table.h"

const char *size_text(uint64_t bytes, char text[32])
{
	static const char units[] = "BKMGTPE";
	double size = (double)bytes;
	int unit = 0;

	while (size >= 1024 && units[unit + 1]) {
		size /= 1024;
		unit++;
	}
	snprintf(text, 32, unit ? "%.1f%c" : "%.0f%c", size, units[unit]);
	return text;
}

void print_last_cell(const char *text)
{
	size_t control;

	for (; *text; text += control ? control : 1) {
		control = control_character(text);
		putchar(control ? '?' : *text);
	}
	putchar('\n');
}
