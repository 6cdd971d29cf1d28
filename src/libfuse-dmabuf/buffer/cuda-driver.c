/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Loads NVIDIA's driver library. */
#include <pthread.h>

#include "base/error.h"
#include "buffer/cuda-driver.h"
#include "buffer/gpu.h"

struct cuda_driver cuda_driver;

#define NEEDED(name, symbol, parameters) { #symbol, (void **)&cuda_driver.name, false },
#define OPTIONAL(name, symbol, parameters) { #symbol, (void **)&cuda_driver.name, true },

static struct gpu_library library = {
	.names = (const char *const[]){ "libcuda.so.1", NULL },
	.symbols = (const struct gpu_symbol[]){
		CUDA_FUNCTIONS(NEEDED)
		CUDA_NEWER_FUNCTIONS(OPTIONAL)
		{ NULL, NULL, false },
	},
	.remedy = "install NVIDIA's driver (package libcuda1)",
};

static void load_library(void)
{
	gpu_load_library(&library);
}

int cuda_load(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load_library);
	return library.is_loaded ? 0 : fail(EOPNOTSUPP, "cuda: %s", library.error);
}
