/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stdio.h>

#include "internal.h"

/* Long enough for a path of ordinary length and a cure; longer text is cut. */
static _Thread_local char last_error[1024];

const char *fdmabuf_error(void)
{
	return last_error;
}

int fail(int error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(last_error, sizeof(last_error), format, arguments);
	va_end(arguments);
	return -error;
}
