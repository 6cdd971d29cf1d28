/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Huge pages of host memory, and the amount of memory that is available. */
#ifndef FDMABUF_PAGES_H
#define FDMABUF_PAGES_H

#include "buffer/exporter.h"

/* Implements parse of an exporter that takes the size of a huge page, such as "2M" or "1G". */
int parse_page_size(const char *argument, struct fdmabuf_memory *memory);

/*
 * Checks memory->page_size. Sets *size to memory->bytes, rounded up to whole pages of this size,
 * and *flags to those of mmap(2) and memfd_create(2) that choose the size of a huge page, or to 0
 * for ordinary pages. @exporter is for the text of an error.
 */
int choose_pages(const char *exporter, const struct fdmabuf_memory *memory, uint64_t *size,
		 unsigned *flags);

/*
 * Sets the text for @error (positive) of mmap(2) of @size bytes in the pages of @memory. Returns a
 * negative errno.
 */
int pages_error(const char *exporter, const struct fdmabuf_memory *memory, uint64_t size,
		int error);

/* Returns the bytes that can be had without swapping, or 0 if /proc/meminfo cannot be read. */
uint64_t available_memory(void);

/*
 * Returns true if the kernel gives shared memory huge pages only after madvise(2): then they have
 * to be there before a driver asks for the pages.
 */
bool shared_memory_needs_advice(void);

/*
 * Reports "NAME:2M" and the like for each size of which huge pages are reserved. @has_dmabuf is
 * what all of them have. Returns what the function of @report returned, if it was not 0.
 */
int report_huge_pages(const struct exporter_report *report, bool has_dmabuf);

#endif
