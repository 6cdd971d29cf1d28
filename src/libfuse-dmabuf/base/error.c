/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The text of the last failure, one for each thread. */
#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"
#include "fuse-dmabuf.h"

static _Thread_local char last_error[ERROR_TEXT_SIZE];

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
