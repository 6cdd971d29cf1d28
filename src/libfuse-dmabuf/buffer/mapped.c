/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Buffers that the CPU reaches by mmap(2) of their dma-buf: the exporter "import", and map for
 * others.
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
