/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What simulated-cuda.c and simulated-hip.c share: memory, streams and registered host memory of
 * two devices. It is stricter than the real libraries: no operation of a stream runs before the
 * stream is waited for, a stream is of one thread at a time, memory and streams are used in their
 * own context only, and objects that are not freed at the end of the program are reported on
 * stderr. If /dev/udmabuf exists, the dma-bufs are real.
 *
 * The environment variable SIMULATED_CUDA or SIMULATED_HIP has words that change the behaviour:
 *	no-device	there is no GPU
 *	no-dmabuf	the device does not support the export of dma-bufs
 *	no-export	the device claims to support the export, which then fails
 *	no-pin		host memory cannot be registered
 *	unordered	DMA of other devices is visible only after a flush
 *	broken		copies fail
 *	together	a copy ends only if another one is under way at the same time
 * The two files have more.
 */
#ifndef SIMULATED_GPU_H
#define SIMULATED_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GPU_PAGE 4096ull
#define GPU_MEMORY_SIZE (64ull << 20)	/* bytes */
#define GPU_DEVICES 2

/* Those of both libraries. */
enum {
	ERROR_INVALID_VALUE = 1,
	ERROR_OUT_OF_MEMORY = 2,
	ERROR_NOT_INITIALIZED = 3,
	ERROR_NO_DEVICE = 100,
	ERROR_INVALID_DEVICE = 101,
	ERROR_INVALID_CONTEXT = 201,
	ERROR_ILLEGAL_ADDRESS = 700,
	ERROR_NOT_SUPPORTED = 801,
};

/* Holds the lock of the simulation until the end of the function. */
#define LOCKED __attribute__((cleanup(gpu_unlock), unused)) char is_locked = gpu_lock()
char gpu_lock(void);
void gpu_unlock(char *is_locked);

/* Defined by the libraries: the variable, and what must not be left at the end. */
extern const char gpu_variable[];
bool gpu_report(char *text, size_t size);

bool gpu_is(const char *word);
const char *gpu_error_text(int result);
/* Where the devices are. */
extern const unsigned gpu_buses[GPU_DEVICES];
int gpu_by_address(int *device, const char *address);

struct gpu_allocation {
	uint64_t address;	/* 0 if this slot is free */
	size_t size, block;
	uintptr_t context;	/* 0 = any */
	int device;
	int memfd;
	unsigned char *memory;	/* the target of DMA: the block */
	unsigned char *visible;	/* the content that the GPU sees: memory, unless "unordered" */
};

/* Allocates @size bytes at @offset of a block of memory of its own. */
int gpu_allocate(uint64_t *address, size_t size, size_t offset, size_t block, int device,
		 uintptr_t context);
int gpu_free(uint64_t address);
size_t gpu_used(void);
/* Returns the allocation that has the whole range, or NULL. */
struct gpu_allocation *gpu_find(uint64_t address, size_t length);
/* Makes a dma-buf of a range of the block, which begins and ends at pages. */
int gpu_export(int *fd, const struct gpu_allocation *allocation, size_t offset, size_t length);
/* Makes DMA visible. */
void gpu_flush(void);

struct gpu_stream;
int gpu_stream_create(struct gpu_stream **stream, uintptr_t context);
int gpu_stream_destroy(struct gpu_stream *stream);
/* Does what was queued, if the context is the stream's. */
int gpu_stream_wait(struct gpu_stream *stream, uintptr_t context);
/* The host memory is NULL for zeros. */
int gpu_copy_in(struct gpu_stream *stream, uintptr_t context, uint64_t to, const void *from,
		size_t length);
int gpu_copy_out(struct gpu_stream *stream, uintptr_t context, void *to, uint64_t from,
		 size_t length);

int gpu_register(void *memory, size_t length);
int gpu_unregister(void *memory);
bool gpu_is_registered(const void *memory, size_t length);

#endif
