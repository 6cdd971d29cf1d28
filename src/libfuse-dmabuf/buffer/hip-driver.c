/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Loads AMD's HIP runtime. */
#include <pthread.h>

#include "base/error.h"
#include "buffer/gpu.h"
#include "buffer/hip-driver.h"

struct hip_driver hip_driver;

#define NEEDED(name, symbol, parameters) { #symbol, (void **)&hip_driver.name, false },
#define OPTIONAL(name, symbol, parameters) { #symbol, (void **)&hip_driver.name, true },

static struct gpu_library library = {
	.names = (const char *const[]){ "libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5",
					"libamdhip64.so", NULL },
	.symbols = (const struct gpu_symbol[]){
		HIP_FUNCTIONS(NEEDED)
		NEEDED(error_text, hipGetErrorString, )
		HIP_NEWER_FUNCTIONS(OPTIONAL)
		{ NULL, NULL, false },
	},
	.remedy = "install AMD's ROCm (package hip-runtime-amd, or libamdhip64-6 of Debian), or "
		  "set LD_LIBRARY_PATH to its directory (often /opt/rocm/lib)",
};

static void load_library(void)
{
	gpu_load_library(&library);
}

int hip_load(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load_library);
	return library.is_loaded ? 0 : fail(EOPNOTSUPP, "hip: %s", library.error);
}
