/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pins host memory for the copy engines of GPUs. */
#include <stdlib.h>

#include "buffer/gpu.h"

/* Keeps the device's own context, and not the buffer that the memory was pinned for. */
struct gpu_pin {
	struct host_pin pin;
	const struct gpu_runtime *runtime;
	struct gpu_context context;
	void *memory;
};

static void release_pin(struct host_pin *pin)
{
	struct gpu_pin *gpu = (struct gpu_pin *)pin;
	int before;

	if (!gpu->runtime->enter(&gpu->context, &before)) {
		gpu->runtime->host_unregister(gpu->memory);
		gpu->runtime->leave(before);
	}
	gpu->runtime->detach(&gpu->context);
	free(gpu);
}

static bool register_host(const struct gpu_pin *pin, size_t length)
{
	int result, before;

	if (pin->runtime->enter(&pin->context, &before))
		return false;
	result = pin->runtime->host_register(pin->memory, length);
	pin->runtime->leave(before);
	return !result;
}

struct host_pin *gpu_pin_host(struct fdmabuf_buffer *buffer, void *memory, size_t length)
{
	const struct gpu_memory *gpu = buffer->gpu;
	struct gpu_pin *pin = calloc(1, sizeof(*pin));

	if (!pin)
		return NULL;
	*pin = (struct gpu_pin){
		.pin.release = release_pin,
		.runtime = gpu->runtime,
		.context = gpu->own,
		.memory = memory,
	};
	if (gpu->runtime->attach(&pin->context)) {
		free(pin);
		return NULL;
	}
	if (!register_host(pin, length)) {
		gpu->runtime->detach(&pin->context);
		free(pin);
		return NULL;
	}
	return &pin->pin;
}
