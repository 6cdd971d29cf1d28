/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages of fuse-dmabuf on standard error. */
#include <stdarg.h>
#include <stdio.h>

#include "common/text.h"
#include "complain.h"
#include "exit-code.h"

/* Bytes. A path may have 4095; longer messages are cut. */
#define MESSAGE_MAX 8192

int complain(const char *format, ...)
{
	char text[MESSAGE_MAX];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	replace_control_characters(text);
	fprintf(stderr, "fuse-dmabuf: %s\n", text);
	return EXIT_FAILED;
}
