/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A libcuda.so.1 for machines without a GPU. This library is stricter than the real one: no
 * operation of a stream runs before the stream is waited for, and objects that are not freed at the
 * end of the program are reported on stderr. If /dev/udmabuf exists, the dma-bufs are real.
 *
 * The environment variable SIMULATED_CUDA contains words that change the behaviour:
 *	no-device	there is no GPU
 *	no-dmabuf	the device does not support the export of dma-bufs
 *	no-export	the device claims to support the export, which then fails
 *	no-pin		host memory cannot be registered
 *	odd		allocations begin in the middle of a page
 *	pcie		the export of a dma-buf requires the flag for the BAR
 *	unordered	DMA of other devices is visible only after a flush
 *	broken		copies fail
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/udmabuf.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../src/libfuse-dmabuf/buffer/cuda-driver.h"

#define PAGE 4096ull
#define MEMORY_SIZE (64ull << 20)	/* bytes */
#define DEVICES 2
#define PENDING_MAX 64
#define SLOTS 16
#define ERROR_NOT_INITIALIZED 3
#define ERROR_INVALID_CONTEXT 201
#define ERROR_ILLEGAL_ADDRESS 700

/* GPU address minus CPU address. No GPU address is one that the CPU can use. */
#define GPU_ADDRESS_OFFSET (1ull << 60)

struct allocation {
	cuda_pointer pointer;	/* 0 if this slot is free */
	size_t size;
	int memfd;
	unsigned char *memory;	/* the target of DMA */
	unsigned char *visible;	/* the content that the GPU sees: memory, unless "unordered" */
};

struct operation {
	enum { COPY_IN, COPY_OUT, FILL } kind;
	cuda_pointer device;
	void *host, *staged;
	size_t length;
};

struct cuda_stream {
	struct operation pending[PENDING_MAX];
	unsigned count;
};

static struct allocation allocations[SLOTS];
static struct { char *memory; size_t length; } registered[SLOTS];
static pthread_mutex_t stream_lock = PTHREAD_MUTEX_INITIALIZER;	/* several threads copy */
static bool is_initialised;
static int contexts, streams;
static uint64_t used;
static _Thread_local int context_depth;	/* contexts pushed and not yet popped */

static bool is_simulating(const char *word)
{
	const char *words = getenv("SIMULATED_CUDA");

	return words && strstr(words, word);
}

static struct allocation *find(cuda_pointer pointer, size_t length)
{
	for (unsigned i = 0; i < sizeof(allocations) / sizeof(*allocations); i++) {
		struct allocation *a = &allocations[i];

		if (a->pointer && pointer >= a->pointer && pointer - a->pointer + length <= a->size)
			return a;
	}
	return NULL;
}

int cuInit(unsigned flags)
{
	if (is_simulating("no-device"))
		return CUDA_ERROR_NO_DEVICE;
	is_initialised = true;
	return flags ? CUDA_ERROR_INVALID_VALUE : 0;
}

int cuGetErrorString(int result, const char **text)
{
	*text = result == CUDA_ERROR_NO_DEVICE ? "no CUDA-capable device is detected" :
		result == CUDA_ERROR_NOT_SUPPORTED ? "operation not supported" :
		result == CUDA_ERROR_INVALID_DEVICE ? "invalid device ordinal" :
		result == ERROR_ILLEGAL_ADDRESS ? "an illegal memory access was encountered" :
		"simulated";
	return 0;
}

int cuDeviceGet(int *device, int ordinal)
{
	if (!is_initialised)
		return ERROR_NOT_INITIALIZED;
	*device = ordinal;
	return ordinal < DEVICES ? 0 : CUDA_ERROR_INVALID_DEVICE;
}

int cuDeviceGetByPCIBusId(int *device, const char *address)
{
	unsigned domain, bus, slot, function;

	if (sscanf(address, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4)
		return CUDA_ERROR_INVALID_VALUE;
	*device = 1;
	return bus == 3 ? 0 : CUDA_ERROR_INVALID_DEVICE;
}

int cuDeviceGetName(char *name, int room, int device)
{
	snprintf(name, room, "Simulated GPU %d", device);
	return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
	if (attribute == CUDA_ATTRIBUTE_DMA_BUF_SUPPORTED)
		*value = !is_simulating("no-dmabuf");
	else if (attribute == CUDA_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING)
		*value = is_simulating("unordered") ? 0 : CUDA_WRITES_ORDERED_FOR_OWNER;
	else
		return CUDA_ERROR_INVALID_VALUE;
	return device < DEVICES ? 0 : CUDA_ERROR_INVALID_DEVICE;
}

int cuDevicePrimaryCtxRetain(cuda_context *context, int device)
{
	contexts++;
	*context = (cuda_context)(uintptr_t)(device + 1);
	return 0;
}

int cuDevicePrimaryCtxRelease_v2(int device)
{
	contexts--;
	return device < DEVICES ? 0 : CUDA_ERROR_INVALID_DEVICE;
}

int cuCtxPushCurrent_v2(cuda_context context)
{
	context_depth++;
	return context ? 0 : ERROR_INVALID_CONTEXT;
}

int cuCtxPopCurrent_v2(cuda_context *context)
{
	*context = NULL;
	return context_depth-- > 0 ? 0 : ERROR_INVALID_CONTEXT;
}

int cuMemGetInfo_v2(size_t *available, size_t *total)
{
	*total = MEMORY_SIZE;
	*available = MEMORY_SIZE - used;
	return context_depth ? 0 : ERROR_INVALID_CONTEXT;
}

int cuMemAlloc_v2(cuda_pointer *pointer, size_t size)
{
	struct allocation *a = allocations, *last = a + sizeof(allocations) / sizeof(*a) - 1;
	size_t room = (size + 2 * PAGE) / PAGE * PAGE;

	if (!context_depth)
		return ERROR_INVALID_CONTEXT;
	if (size > MEMORY_SIZE - used)
		return CUDA_ERROR_OUT_OF_MEMORY;
	while (a->pointer && a < last)
		a++;
	if (a->pointer)
		return CUDA_ERROR_OUT_OF_MEMORY;
	a->memfd = memfd_create("simulated-cuda", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (a->memfd < 0 || ftruncate(a->memfd, room) ||
	    fcntl(a->memfd, F_ADD_SEALS, F_SEAL_SHRINK))
		return CUDA_ERROR_OUT_OF_MEMORY;
	a->memory = a->visible = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED, a->memfd, 0);
	if (is_simulating("unordered"))
		a->visible = calloc(1, room);
	a->size = size;
	a->pointer = (uintptr_t)a->memory + GPU_ADDRESS_OFFSET + (is_simulating("odd") ? 512 : 0);
	used += size;
	*pointer = a->pointer;
	return 0;
}

int cuMemFree_v2(cuda_pointer pointer)
{
	struct allocation *a = find(pointer, 0);

	if (!context_depth || !a || a->pointer != pointer)
		return CUDA_ERROR_INVALID_VALUE;
	if (a->visible != a->memory)
		free(a->visible);
	munmap(a->memory, (a->size + 2 * PAGE) / PAGE * PAGE);
	close(a->memfd);
	used -= a->size;
	a->pointer = 0;
	return 0;
}

int cuPointerSetAttribute(const void *value, int attribute, cuda_pointer pointer)
{
	if (!value || attribute != CUDA_POINTER_ATTRIBUTE_SYNC_MEMOPS || !find(pointer, 1))
		return CUDA_ERROR_INVALID_VALUE;
	return 0;
}

int cuStreamCreate(cuda_stream *stream, unsigned flags)
{
	if (!context_depth)
		return ERROR_INVALID_CONTEXT;
	*stream = calloc(1, sizeof(**stream));
	streams++;
	return flags == CUDA_STREAM_NON_BLOCKING ? 0 : CUDA_ERROR_INVALID_VALUE;
}

int cuStreamDestroy_v2(cuda_stream stream)
{
	streams--;
	free(stream);
	return context_depth ? 0 : ERROR_INVALID_CONTEXT;
}

/* Writes to the memory and to what the GPU sees of it. Zeroes the range if @from is NULL. */
static void write_memory(cuda_pointer to, const void *from, size_t length)
{
	struct allocation *a = find(to, length);
	size_t offset = to - GPU_ADDRESS_OFFSET - (uintptr_t)a->memory;

	for (unsigned char *memory = a->memory;; memory = a->visible) {
		if (from)
			memcpy(memory + offset, from, length);
		else
			memset(memory + offset, 0, length);
		if (memory == a->visible)
			return;
	}
}

static int finish_operations(cuda_stream stream)
{
	for (unsigned i = 0; i < stream->count; i++) {
		struct operation *o = &stream->pending[i];
		struct allocation *a = find(o->device, o->length);

		if (!a)
			return ERROR_ILLEGAL_ADDRESS;
		if (o->kind == COPY_OUT)
			memcpy(o->host, a->visible +
			       (o->device - GPU_ADDRESS_OFFSET - (uintptr_t)a->memory), o->length);
		else
			write_memory(o->device, o->kind == FILL ? NULL :
				     o->staged ? o->staged : o->host, o->length);
		free(o->staged);
	}
	stream->count = 0;
	return 0;
}

int cuStreamSynchronize(cuda_stream stream)
{
	int result;

	if (!context_depth)
		return ERROR_INVALID_CONTEXT;
	pthread_mutex_lock(&stream_lock);
	result = finish_operations(stream);
	pthread_mutex_unlock(&stream_lock);
	return result;
}

static bool is_registered(const char *memory, size_t length)
{
	for (unsigned i = 0; i < sizeof(registered) / sizeof(*registered); i++)
		if (registered[i].memory && memory >= registered[i].memory &&
		    memory + length <= registered[i].memory + registered[i].length)
			return true;
	return false;
}

static int queue_operation(cuda_stream stream, struct operation operation)
{
	int result = CUDA_ERROR_INVALID_VALUE;

	if (!context_depth)
		return ERROR_INVALID_CONTEXT;
	if (is_simulating("broken"))
		return ERROR_ILLEGAL_ADDRESS;
	pthread_mutex_lock(&stream_lock);
	if (find(operation.device, operation.length) && stream->count < PENDING_MAX) {
		stream->pending[stream->count++] = operation;
		result = 0;
	}
	pthread_mutex_unlock(&stream_lock);
	return result;
}

int cuMemcpyHtoDAsync_v2(cuda_pointer to, const void *from, size_t length, cuda_stream stream)
{
	struct operation operation = { COPY_IN, to, (void *)from, NULL, length };

	if (!is_registered(from, length)) {
		operation.staged = malloc(length);
		memcpy(operation.staged, from, length);
	}
	return queue_operation(stream, operation);
}

int cuMemcpyDtoHAsync_v2(void *to, cuda_pointer from, size_t length, cuda_stream stream)
{
	return queue_operation(stream, (struct operation){ COPY_OUT, from, to, NULL, length });
}

int cuMemsetD8Async(cuda_pointer to, unsigned char byte, size_t length, cuda_stream stream)
{
	if (byte)
		return CUDA_ERROR_INVALID_VALUE;
	return queue_operation(stream, (struct operation){ FILL, to, NULL, NULL, length });
}

int cuMemHostRegister_v2(void *memory, size_t length, unsigned flags)
{
	unsigned i = 0;

	if (is_simulating("no-pin"))
		return CUDA_ERROR_NOT_SUPPORTED;
	while (registered[i].memory)
		i++;
	registered[i].memory = memory;
	registered[i].length = length;
	return context_depth && flags == CUDA_HOST_REGISTER_PORTABLE ? 0 : ERROR_INVALID_CONTEXT;
}

int cuMemHostUnregister(void *memory)
{
	for (unsigned i = 0; i < sizeof(registered) / sizeof(*registered); i++) {
		if (registered[i].memory == memory) {
			registered[i].memory = NULL;
			return context_depth ? 0 : ERROR_INVALID_CONTEXT;
		}
	}
	return CUDA_ERROR_INVALID_VALUE;
}

int cuFlushGPUDirectRDMAWrites(int target, int scope)
{
	if (!context_depth || target != CUDA_FLUSH_CURRENT_CONTEXT || scope != CUDA_FLUSH_TO_OWNER)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < sizeof(allocations) / sizeof(*allocations); i++)
		if (allocations[i].pointer && allocations[i].visible != allocations[i].memory)
			memcpy(allocations[i].visible, allocations[i].memory,
			       allocations[i].size + PAGE);
	return 0;
}

int cuMemGetHandleForAddressRange(void *handle, cuda_pointer from, size_t length, int type,
				  unsigned long long flags)
{
	struct allocation *a = find(from, length);
	struct udmabuf_create create = { .flags = UDMABUF_FLAGS_CLOEXEC, .size = length };
	int device, *fd = handle;

	if (!context_depth || !a || from % PAGE || length % PAGE || type != CUDA_HANDLE_DMA_BUF_FD)
		return CUDA_ERROR_INVALID_VALUE;
	if (is_simulating("no-export") ||
	    flags != (is_simulating("pcie") ? CUDA_RANGE_FLAG_PCIE : 0))
		return CUDA_ERROR_NOT_SUPPORTED;
	device = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);
	if (device < 0) {
		*fd = fcntl(a->memfd, F_DUPFD_CLOEXEC, 3);
		return 0;
	}
	create.memfd = a->memfd;
	create.offset = from - GPU_ADDRESS_OFFSET - (uintptr_t)a->memory;
	*fd = ioctl(device, UDMABUF_CREATE, &create);
	close(device);
	return *fd < 0 ? CUDA_ERROR_NOT_SUPPORTED : 0;
}

__attribute__((destructor)) static void report_leaks(void)
{
	unsigned memory = 0, host = 0;

	for (unsigned i = 0; i < SLOTS; i++) {
		memory += allocations[i].pointer != 0;
		host += registered[i].memory != NULL;
	}
	if (memory || host || contexts || streams || context_depth)
		fprintf(stderr, "simulated-cuda: left: %u allocations, %u registered, %d contexts, "
			"%d streams, %d current\n", memory, host, contexts, streams, context_depth);
}
