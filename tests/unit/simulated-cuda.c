/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A libcuda.so.1 for machines without a GPU: see simulated-gpu.h. More words of SIMULATED_CUDA:
 *	odd		allocations begin in the middle of a page
 *	pcie		the export of a dma-buf requires the flag for the BAR
 *	no-flush	the host cannot flush, but work after a copy sees what was unordered
 *	mapped		memory is that of cuMemMap(): it belongs to no context, and consists of
 *			allocations of two pages
 */
#include <stdio.h>

#include "../../src/libfuse-dmabuf/buffer/cuda-driver.h"
#include "simulated-gpu.h"

#define CONTEXTS_MAX 8
#define OTHER_CONTEXT 0x100u	/* a context of cuCtxCreate(), and not the primary one */
#define PIECE (2 * GPU_PAGE)

const char gpu_variable[] = "SIMULATED_CUDA";

static bool is_initialised;
static int contexts;
static int references[GPU_DEVICES];	/* to primary contexts */
static _Thread_local uintptr_t stack[CONTEXTS_MAX];
static _Thread_local int depth;

static uintptr_t current(void)
{
	return depth > 0 ? stack[depth - 1] : 0;
}

static int device_of(uintptr_t context)
{
	return (int)(context & ~(uintptr_t)OTHER_CONTEXT) - 1;
}

bool gpu_report(char *text, size_t size)
{
	snprintf(text, size, ", %d contexts, %d current", contexts, depth);
	return contexts || depth;
}

int cuInit(unsigned flags)
{
	if (gpu_is("no-device"))
		return ERROR_NO_DEVICE;
	is_initialised = true;
	return flags ? ERROR_INVALID_VALUE : 0;
}

int cuGetErrorString(int result, const char **text)
{
	*text = gpu_error_text(result);
	return 0;
}

int cuDeviceGetCount(int *count)
{
	*count = GPU_DEVICES;
	return is_initialised ? 0 : ERROR_NOT_INITIALIZED;
}

int cuDeviceGet(int *device, int ordinal)
{
	if (!is_initialised)
		return ERROR_NOT_INITIALIZED;
	*device = ordinal;
	return ordinal >= 0 && ordinal < GPU_DEVICES ? 0 : ERROR_INVALID_DEVICE;
}

int cuDeviceGetByPCIBusId(int *device, const char *address)
{
	return gpu_by_address(device, address);
}

int cuDeviceGetName(char *name, int room, int device)
{
	snprintf(name, room, "Simulated GPU %d", device);
	return 0;
}

int cuDeviceGetPCIBusId(char *address, int room, int device)
{
	snprintf(address, room, "0000:%02X:00.0", gpu_buses[device]);
	return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
	if (attribute == CUDA_ATTRIBUTE_DMA_BUF_SUPPORTED)
		*value = !gpu_is("no-dmabuf");
	else if (attribute == CUDA_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING)
		*value = gpu_is("unordered") ? 0 : CUDA_WRITES_ORDERED_FOR_OWNER;
	else if (attribute == CUDA_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS)
		*value = gpu_is("no-flush") ? 0 : CUDA_FLUSH_BY_HOST;
	else
		return ERROR_INVALID_VALUE;
	return device < GPU_DEVICES ? 0 : ERROR_INVALID_DEVICE;
}

/* ------------------------------------------------------------------- contexts */

int cuDevicePrimaryCtxRetain(cuda_context *context, int device)
{
	LOCKED;

	contexts++;
	references[device]++;
	*context = (cuda_context)(uintptr_t)(device + 1);
	return 0;
}

int cuDevicePrimaryCtxRelease_v2(int device)
{
	LOCKED;

	contexts--;
	return references[device]-- > 0 ? 0 : ERROR_INVALID_CONTEXT;
}

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *is_active)
{
	LOCKED;

	*flags = 0;
	*is_active = references[device] > 0;
	return 0;
}

int cuCtxPushCurrent_v2(cuda_context context)
{
	if (!context || depth == CONTEXTS_MAX)
		return ERROR_INVALID_CONTEXT;
	stack[depth++] = (uintptr_t)context;
	return 0;
}

int cuCtxPopCurrent_v2(cuda_context *context)
{
	*context = (cuda_context)current();
	return depth-- > 0 ? 0 : ERROR_INVALID_CONTEXT;
}

/* For tests: makes a context that is not the primary one, and current. */
int cuCtxCreate_v2(cuda_context *context, unsigned flags, int device)
{
	LOCKED;

	contexts++;
	*context = (cuda_context)(uintptr_t)((device + 1) | OTHER_CONTEXT);
	return flags ? ERROR_INVALID_VALUE : cuCtxPushCurrent_v2(*context);
}

int cuCtxDestroy_v2(cuda_context context)
{
	LOCKED;

	contexts--;
	return context ? 0 : ERROR_INVALID_CONTEXT;
}

/* --------------------------------------------------------------------- memory */

int cuMemGetInfo_v2(size_t *available, size_t *total)
{
	LOCKED;

	*total = GPU_MEMORY_SIZE;
	*available = GPU_MEMORY_SIZE - gpu_used();
	return current() ? 0 : ERROR_INVALID_CONTEXT;
}

int cuMemAlloc_v2(cuda_pointer *pointer, size_t size)
{
	LOCKED;

	if (!current())
		return ERROR_INVALID_CONTEXT;
	return gpu_allocate(pointer, size, gpu_is("odd") ? 512 : 0,
			    (size + 2 * GPU_PAGE) / GPU_PAGE * GPU_PAGE, device_of(current()),
			    gpu_is("mapped") ? 0 : current());
}

int cuMemFree_v2(cuda_pointer pointer)
{
	LOCKED;

	return current() ? gpu_free(pointer) : ERROR_INVALID_CONTEXT;
}

int cuMemGetAddressRange_v2(cuda_pointer *begin, size_t *size, cuda_pointer pointer)
{
	LOCKED;
	struct gpu_allocation *a = gpu_find(pointer, 1);
	size_t offset, left;

	if (!current())
		return ERROR_INVALID_CONTEXT;
	if (!a)
		return ERROR_INVALID_VALUE;
	offset = gpu_is("mapped") ? (pointer - a->address) / PIECE * PIECE : 0;
	left = a->size - offset;
	*begin = a->address + offset;
	*size = gpu_is("mapped") && left > PIECE ? PIECE : left;
	return 0;
}

int cuPointerGetAttribute(void *value, int attribute, cuda_pointer pointer)
{
	LOCKED;
	struct gpu_allocation *a = gpu_find(pointer, 1);
	bool is_host = gpu_is_registered((void *)(uintptr_t)pointer, 1);

	if (!a && !is_host)
		return ERROR_INVALID_VALUE;
	switch (attribute) {
	case CUDA_POINTER_CONTEXT:
		*(cuda_context *)value = a ? (cuda_context)a->context : NULL;
		return 0;
	case CUDA_POINTER_MEMORY_TYPE:
		*(unsigned *)value = is_host ? CUDA_MEMORY_HOST : CUDA_MEMORY_DEVICE;
		return 0;
	case CUDA_POINTER_IS_MANAGED:
		*(unsigned *)value = 0;
		return 0;
	case CUDA_POINTER_DEVICE_ORDINAL:
		*(int *)value = a ? a->device : 0;
		return 0;
	default:
		return ERROR_INVALID_VALUE;
	}
}

int cuPointerSetAttribute(const void *value, int attribute, cuda_pointer pointer)
{
	LOCKED;

	if (!value || attribute != CUDA_POINTER_SYNC_MEMOPS || !gpu_find(pointer, 1))
		return ERROR_INVALID_VALUE;
	return 0;
}

int cuMemGetHandleForAddressRange(void *handle, cuda_pointer from, size_t length, int type,
				  unsigned long long flags)
{
	LOCKED;
	struct gpu_allocation *a = gpu_find(from, length);

	if (!current() || !a || from % GPU_PAGE || length % GPU_PAGE ||
	    type != CUDA_HANDLE_DMA_BUF_FD)
		return ERROR_INVALID_VALUE;
	if (flags != (gpu_is("pcie") ? CUDA_RANGE_FLAG_PCIE : 0))
		return ERROR_NOT_SUPPORTED;
	return gpu_export(handle, a, (from - a->address + GPU_PAGE - 1) / GPU_PAGE * GPU_PAGE,
			  length);
}

int cuFlushGPUDirectRDMAWrites(int target, int scope)
{
	LOCKED;

	if (!current() || target != CUDA_FLUSH_CURRENT_CONTEXT || scope != CUDA_FLUSH_TO_OWNER)
		return ERROR_INVALID_VALUE;
	if (gpu_is("no-flush"))
		return ERROR_NOT_SUPPORTED;
	gpu_flush();
	return 0;
}

/* -------------------------------------------------------------------- streams */

int cuStreamCreate(cuda_stream *stream, unsigned flags)
{
	LOCKED;

	if (!current())
		return ERROR_INVALID_CONTEXT;
	if (flags != CUDA_STREAM_NON_BLOCKING)
		return ERROR_INVALID_VALUE;
	return gpu_stream_create((struct gpu_stream **)stream, current());
}

int cuStreamDestroy_v2(cuda_stream stream)
{
	LOCKED;

	return current() ? gpu_stream_destroy((struct gpu_stream *)stream) : ERROR_INVALID_CONTEXT;
}

int cuStreamSynchronize(cuda_stream stream)
{
	LOCKED;
	int result = gpu_stream_wait((struct gpu_stream *)stream, current());

	if (gpu_is("no-flush"))
		gpu_flush();
	return result;
}

int cuMemcpyHtoDAsync_v2(cuda_pointer to, const void *from, size_t length, cuda_stream stream)
{
	LOCKED;

	return gpu_copy_in((struct gpu_stream *)stream, current(), to, from, length);
}

int cuMemcpyDtoHAsync_v2(void *to, cuda_pointer from, size_t length, cuda_stream stream)
{
	LOCKED;

	return gpu_copy_out((struct gpu_stream *)stream, current(), to, from, length);
}

int cuMemsetD8Async(cuda_pointer to, unsigned char byte, size_t length, cuda_stream stream)
{
	LOCKED;

	return byte ? ERROR_INVALID_VALUE :
		gpu_copy_in((struct gpu_stream *)stream, current(), to, NULL, length);
}

int cuMemHostRegister_v2(void *memory, size_t length, unsigned flags)
{
	LOCKED;

	if (!current() || flags != CUDA_REGISTER_PORTABLE)
		return ERROR_INVALID_CONTEXT;
	return gpu_register(memory, length);
}

int cuMemHostUnregister(void *memory)
{
	LOCKED;

	return current() ? gpu_unregister(memory) : ERROR_INVALID_CONTEXT;
}
