/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Loads NVIDIA's driver library and translates its errors. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"
#include "buffer/cuda-driver.h"

#define CUDA_LIBRARY "libcuda.so.1"

static struct cuda_driver driver;
static bool is_loaded;
static char load_error[256];

#define CUDA_FIND(name, symbol, parameters)					\
	*(void **)&driver.name = dlsym(library, #symbol);
#define CUDA_NEED(name, symbol, parameters)					\
	if (!driver.name)							\
		missing = #symbol;

static void load_driver(void)
{
	void *library = dlopen(CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
	const char *missing = NULL;

	if (!library) {
		snprintf(load_error, sizeof(load_error),
			 "%s: install NVIDIA's driver (package libcuda1)", dlerror());
		return;
	}
	CUDA_FUNCTIONS(CUDA_FIND)
	CUDA_NEWER_FUNCTIONS(CUDA_FIND)
	CUDA_FUNCTIONS(CUDA_NEED)
	is_loaded = !missing;
	/* The library is not closed, because driver libraries are not made for dlclose(3). */
	if (missing)
		snprintf(load_error, sizeof(load_error),
			 "%s has no %s: install a newer NVIDIA driver", CUDA_LIBRARY, missing);
}

static int to_errno(int result)
{
	switch (result) {
	case CUDA_ERROR_INVALID_VALUE:
		return EINVAL;
	case CUDA_ERROR_OUT_OF_MEMORY:
		return ENOSPC;
	case CUDA_ERROR_DEVICE_UNAVAILABLE:
		return EBUSY;
	case CUDA_ERROR_NO_DEVICE:
	case CUDA_ERROR_INVALID_DEVICE:
		return ENODEV;
	case CUDA_ERROR_NOT_PERMITTED:
		return EACCES;
	case CUDA_ERROR_NOT_SUPPORTED:
		return EOPNOTSUPP;
	default:
		return EIO;
	}
}

int cuda_fail(const struct cuda_driver *cuda, int result, const char *format, ...)
{
	const char *text = NULL;
	char failure[128];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(failure, sizeof(failure), format, arguments);
	va_end(arguments);
	if (cuda->error_text(result, &text) || !text)
		text = "unknown error";
	return fail(to_errno(result), "cuda: %s: %s (CUDA error %d)", failure, text, result);
}

const struct cuda_driver *cuda_driver(int *error)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int result;

	pthread_once(&once, load_driver);
	if (!is_loaded) {
		*error = -fail(EOPNOTSUPP, "cuda: %s", load_error);
		return NULL;
	}
	/* Repeated calls are cheap, and one may succeed after an earlier one has failed. */
	result = driver.init(0);
	if (result) {
		*error = -cuda_fail(&driver, result, "the driver cannot be used");
		return NULL;
	}
	return &driver;
}
