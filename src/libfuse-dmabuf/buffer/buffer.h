/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * buffer/ has the buffers: memory of exporters, and copies to and from this memory. This header has
 * what all exporters have in common; exporter.h is for the exporters themselves.
 * May call: base.
 */
#ifndef FDMABUF_BUFFER_H
#define FDMABUF_BUFFER_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/object.h"
#include "fuse-dmabuf.h"

struct exporter;
struct host_pin;

struct fdmabuf_buffer {
	struct object object;
	const struct exporter *exporter;
	uint64_t size;
	uint64_t address;	/* in the device's own address space; 0 if there is none */
	int dmabuf_fd;		/* -1 if there is no dma-buf */
	char no_dmabuf_reason[160];	/* why the exporter gave no dma-buf, or "" */
	/*
	 * The device that has the memory, for messages, and to tell one from another: "cuda
	 * 0000:03:00.0 (NVIDIA H200)". Empty for host memory.
	 */
	char device[96];
	int numa_node;		/* that this device is near to; -1 = none, or not known */
	_Atomic(unsigned char *) map;	/* NULL until the CPU needs access */
	bool has_pages;			/* the map is ordinary memory, which O_DIRECT accepts */
	bool is_callers;		/* the memory was imported by its address */
	bool is_device_memory;		/* DRM: the map needs io_*(), not host_*() */
	struct vfio_device *vfio;
	struct gpu_memory *gpu;	/* CUDA and HIP */
};

/* Returns a negative errno unless the range is inside the buffer. */
int buffer_check_range(const struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length);

/*
 * Prepares the buffer for write, read and zero. Returns a negative errno if the exporter gives the
 * CPU no access.
 */
int buffer_prepare_copy(struct fdmabuf_buffer *buffer);

/*
 * Pins host memory, to make copies between it and the device faster. Returns NULL if that is not
 * possible, or of no use. buffer_unpin_host() comes before the memory is freed; the buffer may have
 * been freed before, so that its device has the memory for something else.
 */
struct host_pin *buffer_pin_host(struct fdmabuf_buffer *buffer, void *memory, size_t length);
void buffer_unpin_host(struct host_pin *pin);

/*
 * Surround what the CPU does with the map of a buffer that has pages, or direct I/O to them: the
 * exporter's cache maintenance. @writes: to the buffer. Do nothing for a buffer without pages, and
 * return a negative errno if the exporter refuses.
 */
int buffer_begin_access(struct fdmabuf_buffer *buffer, bool writes);
int buffer_end_access(struct fdmabuf_buffer *buffer, bool writes);

/* Makes DMA by other devices visible to the device that owns the buffer. */
int buffer_flush(struct fdmabuf_buffer *buffer);

#endif
