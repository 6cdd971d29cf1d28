/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Buffers that the CPU reaches by mmap(2): the exporters "import" and "memory", and map for others.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/descriptor.h"
#include "base/error.h"
#include "buffer/exporter.h"

void buffer_set_map(struct fdmabuf_buffer *buffer, void *map)
{
	unsigned char *none = NULL;

	if (!atomic_compare_exchange_strong(&buffer->map, &none, map))
		munmap(map, buffer->size);
}

int dmabuf_map(struct fdmabuf_buffer *buffer)
{
	void *map = mmap(NULL, buffer->size, PROT_READ | PROT_WRITE, MAP_SHARED,
			 buffer->dmabuf_fd, 0);

	if (map == MAP_FAILED)
		return fail(EOPNOTSUPP,
			    "the exporter gives the CPU no access to this dma-buf (mmap: %s)",
			    strerror(errno));
	buffer_set_map(buffer, map);
	return 0;
}

void dmabuf_release(struct fdmabuf_buffer *buffer)
{
	if (buffer->map)
		munmap(buffer->map, buffer->size);
	close_fd(&buffer->dmabuf_fd);
}

const struct exporter exporter_import = {
	.number = FDMABUF_EXPORTER_IMPORT,
	.name = "import",
	.look_interval = LOOK_INTERVAL_MAPPED,
	.map = dmabuf_map,
	.write = host_write,
	.read = host_read,
	.zero = host_zero,
	.release = dmabuf_release,
};

static int memory_allocate(struct fdmabuf_buffer *buffer, const struct fdmabuf_memory *memory)
{
	uint64_t size = memory->bytes;
	void *map;

	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		return fail(errno, "memory: %llu MiB: %s", (unsigned long long)size >> 20,
			    strerror(errno));
	/* Most of the time of a load from the page cache would be faults of small pages. */
	madvise(map, size, MADV_HUGEPAGE);
	buffer->map = map;
	buffer->size = size;
	buffer->has_pages = true;
	return 0;
}

const struct exporter exporter_memory = {
	.number = FDMABUF_EXPORTER_MEMORY,
	.name = "memory",
	.allocate = memory_allocate,
	.write = host_write,
	.read = host_read,
	.zero = host_zero,
	.release = dmabuf_release,
};
