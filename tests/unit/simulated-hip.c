/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A libamdhip64.so.6 for machines without a GPU: see simulated-gpu.h. Allocations of less than a
 * block have neighbours in it, and a dma-buf is always of the whole block, as with ROCm. More words
 * of SIMULATED_HIP:
 *	rocm-5		memory types have the numbers of ROCm 5, and some attributes are unknown
 */
#include <stdio.h>

#include "../../src/libfuse-dmabuf/buffer/hip-driver.h"
#include "simulated-gpu.h"

#define BLOCK (2ull << 20)
#define NEIGHBOUR (64ull << 10)	/* bytes */

const char gpu_variable[] = "SIMULATED_HIP";

static bool is_initialised;
static uint32_t flush_registers[GPU_DEVICES];
static _Thread_local int current_device;
static _Thread_local int last_error;

static int failed(int result)
{
	if (result)
		last_error = result;
	return result;
}

/* A context is needed by no function of HIP, so the number stands for the current device. */
static uintptr_t current(void)
{
	return current_device + 1;
}

bool gpu_report(char *text, size_t size)
{
	snprintf(text, size, ", device %d", current_device);
	return false;
}

int hipInit(unsigned flags)
{
	if (gpu_is("no-device"))
		return failed(ERROR_NO_DEVICE);
	is_initialised = true;
	return failed(flags ? ERROR_INVALID_VALUE : 0);
}

const char *hipGetErrorString(int result)
{
	return gpu_error_text(result);
}

int hipGetLastError(void)
{
	int result = last_error;

	last_error = 0;
	return result;
}

int hipRuntimeGetVersion(int *version)
{
	*version = gpu_is("rocm-5") ? 50731921 : 60342134;
	return 0;
}

int hipGetDeviceCount(int *count)
{
	*count = GPU_DEVICES;
	return 0;
}

int hipDeviceGet(int *device, int ordinal)
{
	if (!is_initialised)
		return failed(ERROR_NOT_INITIALIZED);
	*device = ordinal;
	return failed(ordinal >= 0 && ordinal < GPU_DEVICES ? 0 : ERROR_INVALID_DEVICE);
}

int hipDeviceGetByPCIBusId(int *device, const char *address)
{
	/* HIP has one error for all. */
	return failed(gpu_by_address(device, address) ? ERROR_INVALID_VALUE : 0);
}

int hipDeviceGetName(char *name, int room, int device)
{
	snprintf(name, room, "Simulated GPU %d", device);
	return 0;
}

int hipDeviceGetPCIBusId(char *address, int room, int device)
{
	snprintf(address, room, "0000:%02x:00.0", gpu_buses[device]);
	return 0;
}

int hipDeviceGetAttribute(int *value, int attribute, int device)
{
	if (gpu_is("rocm-5") && attribute == HIP_ATTRIBUTE_DMA_BUF_SUPPORTED)
		return failed(ERROR_INVALID_VALUE);
	if (attribute == HIP_ATTRIBUTE_DMA_BUF_SUPPORTED)
		*value = !gpu_is("no-dmabuf");
	else if (attribute == HIP_ATTRIBUTE_HDP_MEM_FLUSH_CNTL)
		*(uint32_t **)value = gpu_is("unordered") ? &flush_registers[device] : NULL;
	else
		return failed(ERROR_INVALID_VALUE);
	return 0;
}

int hipGetDevice(int *device)
{
	*device = current_device;
	return 0;
}

int hipSetDevice(int device)
{
	if (device < 0 || device >= GPU_DEVICES)
		return failed(ERROR_INVALID_DEVICE);
	current_device = device;
	return 0;
}

/* --------------------------------------------------------------------- memory */

int hipMemGetInfo(size_t *available, size_t *total)
{
	LOCKED;

	*total = GPU_MEMORY_SIZE;
	*available = GPU_MEMORY_SIZE - gpu_used();
	return 0;
}

int hipMalloc(void **memory, size_t size)
{
	LOCKED;
	bool has_neighbours = size + NEIGHBOUR <= BLOCK;
	uint64_t address;
	int result = gpu_allocate(&address, size, has_neighbours ? NEIGHBOUR : 0,
				  (size + BLOCK - 1) / BLOCK * BLOCK, current_device, current());

	if (!result)
		*memory = (void *)(uintptr_t)address;
	return failed(result);
}

int hipFree(void *memory)
{
	LOCKED;

	return failed(gpu_free((uintptr_t)memory));
}

int hipMemGetAddressRange(void **begin, size_t *size, void *pointer)
{
	LOCKED;
	struct gpu_allocation *a = gpu_find((uintptr_t)pointer, 1);

	if (!a)
		return failed(ERROR_INVALID_VALUE);
	*begin = (void *)(uintptr_t)a->address;
	*size = a->size;
	return 0;
}

int hipPointerGetAttribute(void *value, int attribute, void *pointer)
{
	LOCKED;
	struct gpu_allocation *a = gpu_find((uintptr_t)pointer, 1);
	bool is_host = gpu_is_registered(pointer, 1);

	if (!a && !is_host)
		return failed(ERROR_INVALID_VALUE);
	if (attribute == HIP_POINTER_MEMORY_TYPE)
		*(unsigned *)value = (is_host ? 1 : 2) - gpu_is("rocm-5");
	else if (attribute == HIP_POINTER_DEVICE_ORDINAL)
		*(int *)value = a ? a->device : 0;
	else
		return failed(ERROR_INVALID_VALUE);
	return 0;
}

#ifndef BEFORE_ROCM_7
int hipMemGetHandleForAddressRange(void *handle, void *from, size_t length, int type,
				   unsigned long long flags)
{
	LOCKED;
	struct gpu_allocation *a = gpu_find((uintptr_t)from, length);

	if (!a || length % GPU_PAGE || type != HIP_HANDLE_DMA_BUF_FD || flags)
		return failed(ERROR_INVALID_VALUE);
	return failed(gpu_export(handle, a, 0, a->block));
}
#endif

/* -------------------------------------------------------------------- streams */

int hipStreamCreateWithFlags(hip_stream *stream, unsigned flags)
{
	LOCKED;

	if (flags != HIP_STREAM_NON_BLOCKING)
		return failed(ERROR_INVALID_VALUE);
	return failed(gpu_stream_create((struct gpu_stream **)stream, current()));
}

int hipStreamDestroy(hip_stream stream)
{
	LOCKED;

	return failed(gpu_stream_destroy((struct gpu_stream *)stream));
}

int hipStreamSynchronize(hip_stream stream)
{
	LOCKED;

	if (flush_registers[current_device] == 1)
		gpu_flush();
	flush_registers[current_device] = 0;
	return failed(gpu_stream_wait((struct gpu_stream *)stream, current()));
}

int hipMemcpyAsync(void *to, const void *from, size_t length, int kind, hip_stream stream)
{
	LOCKED;
	struct gpu_stream *gpu = (struct gpu_stream *)stream;

	switch (kind) {
	case HIP_COPY_HOST_TO_DEVICE:
		return failed(gpu_copy_in(gpu, current(), (uintptr_t)to, from, length));
	case HIP_COPY_DEVICE_TO_HOST:
		return failed(gpu_copy_out(gpu, current(), to, (uintptr_t)from, length));
	default:
		return failed(ERROR_INVALID_VALUE);
	}
}

int hipMemsetAsync(void *to, int byte, size_t length, hip_stream stream)
{
	LOCKED;

	return failed(byte ? ERROR_INVALID_VALUE :
		      gpu_copy_in((struct gpu_stream *)stream, current(), (uintptr_t)to, NULL,
				  length));
}

int hipHostRegister(void *memory, size_t length, unsigned flags)
{
	LOCKED;

	return failed(flags == HIP_REGISTER_PORTABLE ? gpu_register(memory, length) :
		      ERROR_INVALID_VALUE);
}

int hipHostUnregister(void *memory)
{
	LOCKED;

	return failed(gpu_unregister(memory));
}
