/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of GPUs that a runtime in a shared library allocates, exports and copies. The gpu-*.c
 * files do what CUDA and HIP have in common; cuda.c and hip.c implement struct gpu_runtime.
 */
#ifndef FDMABUF_GPU_H
#define FDMABUF_GPU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer/exporter.h"

/* Results of the runtimes' functions: those that CUDA and HIP number alike. 0 is success. */
enum gpu_result {
	GPU_ERROR_INVALID_VALUE = 1,
	GPU_ERROR_OUT_OF_MEMORY = 2,
	GPU_ERROR_DEVICE_UNAVAILABLE = 46,
	GPU_ERROR_NO_DEVICE = 100,
	GPU_ERROR_INVALID_DEVICE = 101,
	GPU_ERROR_NOT_PERMITTED = 800,
	GPU_ERROR_NOT_SUPPORTED = 801,
};

/* A device, and the context that its functions run in. */
struct gpu_context {
	int device;
	void *handle;		/* CUDA: a CUcontext. HIP: NULL */
};

/* What a runtime knows of an address. */
struct gpu_pointer {
	struct gpu_context context;	/* the handle is NULL if the memory belongs to no context */
	bool is_host;
	bool may_span;		/* a range may consist of several mappings side by side */
};

/* What makes DMA by other devices visible to the work of the GPU. */
enum gpu_flush {
	GPU_FLUSH_NONE,		/* the hardware keeps the order */
	GPU_FLUSH_CALL,		/* flush() of the runtime */
	GPU_FLUSH_COPY,		/* any copy that the CPU waits for */
};

/*
 * A runtime. Where nothing else is said, functions return 0 or a result of the runtime, for
 * gpu_fail().
 */
struct gpu_runtime {
	const char *name;	/* of the exporter, for example "cuda" */
	const char *title;	/* for example "CUDA" */
	const char *lister;	/* the command that lists the devices */

	/* Returns 0 or a negative errno with the text set. Is called before all others. */
	int (*load)(void);
	/* Returns NULL if the result is unknown. */
	const char *(*error_text)(int result);

	int (*device_count)(int *count);
	int (*device_get)(int *device, int number);
	int (*device_by_address)(int *device, const char *address);
	int (*device_name)(char *name, int size, int device);
	int (*device_address)(char *address, int size, int device);
	/* Returns why the device exports no dma-buf and what to do, or NULL if it exports them. */
	const char *(*why_no_export)(int device);
	enum gpu_flush (*flush_needed)(int device);
	/* Returns the bytes that can be allocated, or 0 if only a new context could tell. */
	uint64_t (*free_bytes)(int device);

	/* Sets the handle of the device's own context and keeps the context until detach(). */
	int (*attach)(struct gpu_context *context);
	void (*detach)(const struct gpu_context *context);
	/* Makes the context current for this thread, until leave() restores the one @before. */
	int (*enter)(const struct gpu_context *context, int *before);
	void (*leave)(int before);

	/* The functions below are called in a context. */
	int (*memory_info)(size_t *available, size_t *total);
	int (*allocate)(uint64_t *address, size_t size);
	void (*free)(uint64_t address);
	int (*address_range)(uint64_t *begin, size_t *size, uint64_t address);
	/*
	 * Exports whole pages of the host as a dma-buf that begins at @address. Returns 0 or a
	 * negative errno with the text set. @device is the name of the device.
	 */
	int (*export_range)(int *fd, uint64_t address, uint64_t size, const char *device);
	int (*flush)(int device);

	int (*stream_create)(void **stream);
	void (*stream_destroy)(void *stream);
	int (*stream_wait)(void *stream);
	int (*copy_in)(uint64_t to, const void *from, size_t length, void *stream);
	int (*copy_out)(void *to, uint64_t from, size_t length, void *stream);
	int (*zero)(uint64_t to, size_t length, void *stream);

	/* Pins for all contexts. */
	int (*host_register)(void *memory, size_t length);
	void (*host_unregister)(void *memory);

	/* Needs no context. Any result but 0 means that the runtime does not know the address. */
	int (*find_pointer)(struct gpu_pointer *found, uint64_t address);
};

/* Streams that a buffer keeps for later copies. More exist while more threads copy. */
#define GPU_STREAMS_KEPT 16

struct gpu_memory {
	const struct gpu_runtime *runtime;
	/* The device's own context, which the CUDA runtime and PyTorch use as well. */
	struct gpu_context own;
	bool is_attached;
	struct gpu_context context;	/* that the memory belongs to: @own, unless imported */
	char name[88];			/* of the device: "0000:03:00.0 (NVIDIA H200)" */
	uint64_t allocation;	/* the buffer begins at its first whole page; 0 if imported */
	enum gpu_flush flush;
	/* Streams that no thread uses now. A copy takes one, so it waits for no other copy. */
	_Atomic(void *) streams[GPU_STREAMS_KEPT];
};

/* ----------------------------------------------------------- gpu-library.c */

struct gpu_symbol {
	const char *name;
	void **function;
	bool is_optional;	/* older libraries lack it, and the pointer is NULL */
};

struct gpu_library {
	const char *const *names;		/* the best one first; ends with NULL */
	const struct gpu_symbol *symbols;	/* end with a NULL name */
	const char *remedy;			/* what to do if there is no library */
	bool is_loaded;
	char error[320];			/* why not */
};

/* Loads the first library that is found, and its symbols. It is never closed. */
void gpu_load_library(struct gpu_library *library);

/*
 * Sets the text of fdmabuf_error() from @result of a function of the runtime, and returns a
 * negative errno. @format says what failed, on what.
 */
int gpu_fail(const struct gpu_runtime *runtime, int result, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* ------------------------------------------------------------ gpu-device.c */

/* Implements parse: digits are the runtime's number of a device, other texts a PCI address. */
int gpu_parse(const char *argument, struct fdmabuf_memory *memory);

/* Finds the device that @memory asks for. Returns 0 or a negative errno. */
int gpu_find_device(const struct gpu_runtime *runtime, const struct fdmabuf_memory *memory,
		    int *device);

/* Sets the PCI address and the name of a device, as far as the runtime tells them. */
void gpu_name_device(const struct gpu_runtime *runtime, int device, char *name, size_t size);

/* Implements list. */
int gpu_list(const struct gpu_runtime *runtime, const struct exporter_report *report);

/* -------------------------------------------------------------- gpu-copy.c */

/* Makes the context of the memory current. Returns 0 or a negative errno. */
int gpu_enter(const struct gpu_memory *gpu, int *before);

/* Implement what their names say. */
int gpu_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data, uint64_t length);
int gpu_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length);
int gpu_zero(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length);
int gpu_flush(struct fdmabuf_buffer *buffer);

/* Destroys the streams that are kept. The context is current. */
void gpu_free_streams(struct gpu_memory *gpu);

/* --------------------------------------------------------------- gpu-pin.c */

/* Implements pin_host: the GPU's copy engine reads the memory without a copy by the CPU. */
struct host_pin *gpu_pin_host(struct fdmabuf_buffer *buffer, void *memory, size_t length);

/* ------------------------------------------------------------ gpu-memory.c */

int gpu_allocate(const struct gpu_runtime *runtime, struct fdmabuf_buffer *buffer,
		 const struct fdmabuf_memory *memory);
int gpu_import(const struct gpu_runtime *runtime, struct fdmabuf_buffer *buffer,
	       uint64_t address, uint64_t size);
void gpu_release(struct fdmabuf_buffer *buffer);

#endif
