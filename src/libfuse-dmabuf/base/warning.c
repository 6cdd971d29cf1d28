/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Gives warnings to the caller's function, or to standard error. */
#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"
#include "base/object.h"
#include "base/warning.h"
#include "fuse-dmabuf.h"

/* Protected by the lock of all objects. */
static fdmabuf_warning_function *warning_function;
static void *warning_data;

void fdmabuf_on_warning(fdmabuf_warning_function *function, void *data)
{
	objects_lock();
	warning_function = function;
	warning_data = data;
	objects_unlock();
}

void warn(const char *format, ...)
{
	char text[ERROR_TEXT_SIZE];
	fdmabuf_warning_function *function;
	va_list arguments;
	void *data;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	objects_lock();
	function = warning_function;
	data = warning_data;
	objects_unlock();
	if (function)
		function(data, text);
	else
		fprintf(stderr, "libfuse-dmabuf: %s\n", text);
}
