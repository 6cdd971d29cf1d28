/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an exporter implements, and what several of them share. */
#ifndef FDMABUF_EXPORTER_H
#define FDMABUF_EXPORTER_H

#include "buffer/buffer.h"

/* What pin_host of an exporter returns begins with this. */
struct host_pin {
	void (*release)(struct host_pin *pin);
};

/*
 * All functions but allocate and release may be called by several threads at the same time. None
 * has a lock that a thread of the parent could hold during fork(2): a child may use the buffer.
 */
struct exporter {
	const char *name;
	/*
	 * Sets the buffer's size, and dmabuf_fd if there is a dma-buf. @argument is the text after
	 * "name:", or NULL if there is none.
	 */
	int (*allocate)(struct fdmabuf_buffer *buffer, const char *argument, uint64_t size);
	/*
	 * Maps the whole buffer for the CPU, and calls buffer_set_map(). NULL if write, read and
	 * zero work without this call.
	 */
	int (*map)(struct fdmabuf_buffer *buffer);
	/* Frees all that allocate and map made, also after either has failed. */
	void (*release)(struct fdmabuf_buffer *buffer);

	/* Copy between host memory and a range of the buffer. The copy is complete on return. */
	int (*write)(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data,
		     uint64_t length);
	int (*read)(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length);
	int (*zero)(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length);

	/* Optional: see buffer.h. */
	struct host_pin *(*pin_host)(struct fdmabuf_buffer *buffer, void *memory, size_t length);
	int (*flush)(struct fdmabuf_buffer *buffer);
};

extern const struct exporter exporter_memory;
extern const struct exporter exporter_udmabuf;
extern const struct exporter exporter_vfio;
extern const struct exporter exporter_cuda;
extern const struct exporter exporter_import;

/* --------------------------------------------------------------- mapped.c */

/* Sets buffer->map, or unmaps @map if another thread has set the buffer's map first. */
void buffer_set_map(struct fdmabuf_buffer *buffer, void *map);

/* Implement map and release for exporters whose dma-buf supports mmap(2). */
int dmabuf_map(struct fdmabuf_buffer *buffer);
void dmabuf_release(struct fdmabuf_buffer *buffer);

/* -------------------------------------------------------------- cpu-copy.c */

/*
 * Implement write, read and zero for exporters with a map. host_*() are for host memory, and do the
 * exporter's cache maintenance; io_*() are for device memory, and use aligned words only.
 */
int host_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data, uint64_t length);
int host_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length);
int host_zero(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length);
int io_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data, uint64_t length);
int io_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length);
int io_zero(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length);

#endif
