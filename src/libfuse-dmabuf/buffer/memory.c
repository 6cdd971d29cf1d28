/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Exporter "memory": ordinary host memory without a dma-buf, the library's or the caller's. */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "base/error.h"
#include "buffer/exporter.h"
#include "buffer/pages.h"

static int memory_allocate(struct fdmabuf_buffer *buffer, const struct fdmabuf_memory *memory)
{
	int map_flags = MAP_PRIVATE | MAP_ANONYMOUS;
	uint64_t size;
	unsigned huge;
	void *map;
	int ret = choose_pages("memory", memory, &size, &huge);

	if (ret)
		return ret;
	if (huge)
		map_flags |= MAP_HUGETLB | (int)huge;
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, map_flags, -1, 0);
	if (map == MAP_FAILED)
		return pages_error("memory", memory, size, errno);
	/* A page fault for each 2 MiB instead of each 4 KiB. Without such pages nothing is lost. */
	madvise(map, size, MADV_HUGEPAGE);
	buffer->map = map;
	buffer->size = size;
	buffer->has_pages = true;
	return 0;
}

/* msync(2) with MS_ASYNC writes nothing, and fails if a page of the range is not mapped. */
static bool is_mapped(uint64_t address, uint64_t size)
{
	uint64_t begin = align_down(address, getpagesize());

	return !msync((void *)begin, address + size - begin, MS_ASYNC);
}

static int memory_import(struct fdmabuf_buffer *buffer, uint64_t address, uint64_t size)
{
	if (!is_mapped(address, size))
		return fail(EFAULT, "memory: %llu bytes at %#llx are not memory of this process",
			    (unsigned long long)size, (unsigned long long)address);
	buffer->map = (unsigned char *)address;
	buffer->size = size;
	buffer->has_pages = true;
	return 0;
}

static int memory_list(const struct exporter_report *report)
{
	int ret = report_exporter(report, (struct fdmabuf_exporter_info){
		.bytes = available_memory(),
	});

	return ret ? ret : report_huge_pages(report, false);
}

static void memory_release(struct fdmabuf_buffer *buffer)
{
	if (!buffer->is_callers)
		dmabuf_release(buffer);
}

const struct exporter exporter_memory = {
	.number = FDMABUF_EXPORTER_MEMORY,
	.name = "memory",
	.options = OPTION_PAGE_SIZE,
	.parse = parse_page_size,
	.allocate = memory_allocate,
	.import_address = memory_import,
	.list = memory_list,
	.write = host_write,
	.read = host_read,
	.zero = host_zero,
	.release = memory_release,
};
