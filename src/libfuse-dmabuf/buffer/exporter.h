/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an exporter implements, and what several of them share. */
#ifndef FDMABUF_EXPORTER_H
#define FDMABUF_EXPORTER_H

#include "buffer/buffer.h"

struct exporter_report;

/* What pin_host of an exporter returns begins with this. */
struct host_pin {
	void (*release)(struct host_pin *pin);
};

/*
 * All functions but allocate and release may be called by several threads at the same time. None
 * has a lock that a thread of the parent could hold during fork(2): a child may use the buffer.
 */
struct exporter {
	enum fdmabuf_exporter number;
	const char *name;
	/*
	 * Sets what the text after "name:" says. *memory may keep pointers into the text.
	 */
	int (*parse)(const char *argument, struct fdmabuf_memory *memory);
	/*
	 * Sets the buffer's size and device, and dmabuf_fd if there is a dma-buf. memory->bytes is
	 * a multiple of the page size. An exporter ignores members that it does not know:
	 * fdmabuf_buffer_create() has refused those that are not in its options.
	 */
	int (*allocate)(struct fdmabuf_buffer *buffer, const struct fdmabuf_memory *memory);
	unsigned options;	/* OPTION_*: what of struct fdmabuf_memory it takes */
	/* Optional: uses memory of the caller. Sets what allocate() does. */
	int (*import_address)(struct fdmabuf_buffer *buffer, uint64_t address, uint64_t size);
	/*
	 * Calls report_exporter() for each device, or once with the error that keeps all away.
	 * Returns what that returned, if it was not 0.
	 */
	int (*list)(const struct exporter_report *report);
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

	/* Optional, for buffers with pages: their cache maintenance. See buffer_begin_access(). */
	int (*access)(struct fdmabuf_buffer *buffer, bool begins, bool writes);
	/* Optional: see buffer.h. */
	struct host_pin *(*pin_host)(struct fdmabuf_buffer *buffer, void *memory, size_t length);
	int (*flush)(struct fdmabuf_buffer *buffer);
	/*
	 * Bytes that are read directly from one look at a mark to the next (see queue/marks.c): far
	 * enough apart that looking costs nothing that can be measured.
	 */
	uint64_t look_interval;
};

/* Looking costs a few stores and loads, or a copy by the GPU with the wait for it. */
#define LOOK_INTERVAL_MAPPED (1ull << 20)
#define LOOK_INTERVAL_COPIED (64ull << 20)

#define OPTION_SIZE_MISSING 1u	/* 0 bytes: all that the exporter has */
#define OPTION_DEVICE 2u	/* device */
#define OPTION_NUMBER 4u	/* number */
#define OPTION_PAGE_SIZE 8u	/* page_size */

/* What fdmabuf_exporters() was called with, for the exporter that lists its devices. */
struct exporter_report {
	const struct exporter *exporter;
	fdmabuf_exporter_function *function;
	void *data;
};

extern const struct exporter exporter_memory;
extern const struct exporter exporter_udmabuf;
extern const struct exporter exporter_heap;
extern const struct exporter exporter_drm;
extern const struct exporter exporter_vfio;
extern const struct exporter exporter_cuda;
extern const struct exporter exporter_hip;
extern const struct exporter exporter_import;

/* --------------------------------------------------------------- report.c */

/* Sets the members that are the same for all devices, and calls the function. */
int report_exporter(const struct exporter_report *report, struct fdmabuf_exporter_info info);

/*
 * Reports the text of the last failure, and @error (negative). @what and @device may be NULL, as
 * for report_exporter().
 */
int report_failure(const struct exporter_report *report, const char *what, const char *device,
		   int error);

/* --------------------------------------------------------------- mapped.c */

/* Sets buffer->map, or unmaps @map if another thread has set the buffer's map first. */
void buffer_set_map(struct fdmabuf_buffer *buffer, void *map);

/* Implement map and release for exporters whose dma-buf supports mmap(2). */
int dmabuf_map(struct fdmabuf_buffer *buffer);
void dmabuf_release(struct fdmabuf_buffer *buffer);

/* -------------------------------------------------------------- cpu-copy.c */

/*
 * Implement write, read, zero and access for exporters with a map. host_*() are for host memory,
 * and do the exporter's cache maintenance; io_*() are for device memory, and use aligned words
 * only.
 */
int host_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data, uint64_t length);
int host_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length);
int host_zero(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length);
int host_access(struct fdmabuf_buffer *buffer, bool begins, bool writes);
int io_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data, uint64_t length);
int io_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length);
int io_zero(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length);

#endif
