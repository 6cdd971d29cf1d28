/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Loads a runtime's library with dlopen(3), and translates the runtime's errors. */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"
#include "buffer/gpu.h"

/* Opens the first library that is found, and sets its name. Returns NULL if there is none. */
static void *open_first(const char *const *names, const char **name)
{
	void *handle = NULL;

	for (; *names && !handle; names++) {
		*name = *names;
		handle = dlopen(*names, RTLD_NOW | RTLD_LOCAL);
	}
	return handle;
}

/* Returns the name of a symbol that is missing and not optional, or NULL. */
static const char *find_symbols(void *handle, const struct gpu_symbol *symbol)
{
	const char *missing = NULL;

	for (; symbol->name; symbol++) {
		*symbol->function = dlsym(handle, symbol->name);
		if (!*symbol->function && !symbol->is_optional)
			missing = symbol->name;
	}
	return missing;
}

void gpu_load_library(struct gpu_library *library)
{
	const char *missing, *name = library->names[0];
	void *handle = open_first(library->names, &name);

	if (!handle) {
		const char *why = dlerror();	/* which names the library */

		snprintf(library->error, sizeof(library->error), "%s: %s",
			 why ? why : name, library->remedy);
		return;
	}
	missing = find_symbols(handle, library->symbols);
	if (missing)
		snprintf(library->error, sizeof(library->error),
			 "%s has no %s: install a newer one", name, missing);
	library->is_loaded = !missing;
}

static int to_errno(int result)
{
	switch (result) {
	case GPU_ERROR_INVALID_VALUE:
		return EINVAL;
	case GPU_ERROR_OUT_OF_MEMORY:
		return ENOSPC;
	case GPU_ERROR_DEVICE_UNAVAILABLE:
		return EBUSY;
	case GPU_ERROR_NO_DEVICE:
	case GPU_ERROR_INVALID_DEVICE:
		return ENODEV;
	case GPU_ERROR_NOT_PERMITTED:
		return EACCES;
	case GPU_ERROR_NOT_SUPPORTED:
		return EOPNOTSUPP;
	default:
		return EIO;
	}
}

int gpu_fail(const struct gpu_runtime *runtime, int result, const char *format, ...)
{
	const char *text = runtime->error_text(result);
	char failure[192];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(failure, sizeof(failure), format, arguments);
	va_end(arguments);
	return fail(to_errno(result), "%s: %s: %s (%s error %d)", runtime->name, failure,
		    text ? text : "unknown error", runtime->title, result);
}
