/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Exporter "heap": host memory from a dma-heap, /dev/dma_heap/NAME. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/dma-heap.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "base/descriptor.h"
#include "base/error.h"
#include "buffer/exporter.h"

#define HEAPS "/dev/dma_heap"

static int heap_parse(const char *argument, struct fdmabuf_memory *memory)
{
	memory->device = argument;
	return 0;
}

/* Accepts only what is one component of a path, and a file in the directory of heaps. */
static bool is_heap_name(const char *name)
{
	return *name && *name != '.' && !strchr(name, '/') && strlen(name) <= NAME_MAX;
}

static int missing_heap(const char *name)
{
	if (access(HEAPS, F_OK))
		return fail(EOPNOTSUPP, "heap: %s: this kernel has no dma-heaps: it needs the "
			    "options CONFIG_DMABUF_HEAPS and CONFIG_DMABUF_HEAPS_SYSTEM", HEAPS);
	return fail(ENODEV, "heap: no dma-heap %s: \"ls %s\" lists them", name, HEAPS);
}

static int open_heap(const char *name)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), HEAPS "/%s", name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	if (errno == ENOENT || errno == ENOTDIR)
		return missing_heap(name);
	if (errno == EACCES || errno == EPERM)
		return fail(errno, "heap: %s: permission denied: run as root, or give this user "
			    "access to the device", path);
	return fail(errno, "heap: %s: %s", path, strerror(errno));
}

static int heap_allocate(struct fdmabuf_buffer *buffer, const struct fdmabuf_memory *memory)
{
	const char *name = memory->device ? memory->device : "system";
	struct dma_heap_allocation_data request = {
		.len = memory->bytes,
		.fd_flags = O_RDWR | O_CLOEXEC,
	};
	__attribute__((cleanup(close_fd))) int heap = -1;

	if (!is_heap_name(name))
		return fail(EINVAL, "heap: \"%s\" is not the name of a dma-heap: \"ls %s\" lists "
			    "them", name, HEAPS);
	heap = open_heap(name);
	if (heap < 0)
		return heap;
	if (ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &request))
		return fail(errno, "heap: %llu MiB of %s: %s",
			    (unsigned long long)align_up(memory->bytes, 1 << 20) >> 20, name,
			    strerror(errno));
	buffer->dmabuf_fd = (int)request.fd;
	buffer->size = memory->bytes;
	return 0;
}

static int list_heap(const struct exporter_report *report, const char *name)
{
	__attribute__((cleanup(close_fd))) int heap = open_heap(name);
	char what[NAME_MAX + sizeof("heap:")];

	snprintf(what, sizeof(what), "heap:%s", name);
	if (heap < 0)
		return report_failure(report, what, NULL, heap);
	return report_exporter(report, (struct fdmabuf_exporter_info){
		.what = what, .has_dmabuf = true,
	});
}

static int heap_list(const struct exporter_report *report)
{
	DIR *heaps = opendir(HEAPS);
	const struct dirent *entry;
	bool is_empty = true;
	int ret = 0;

	while (!ret && heaps && (entry = readdir(heaps))) {
		if (!is_heap_name(entry->d_name))
			continue;
		is_empty = false;
		ret = list_heap(report, entry->d_name);
	}
	if (heaps)
		closedir(heaps);
	return is_empty ? report_failure(report, NULL, NULL, missing_heap("system")) : ret;
}

const struct exporter exporter_heap = {
	.number = FDMABUF_EXPORTER_HEAP,
	.name = "heap",
	.options = OPTION_DEVICE,
	.look_interval = LOOK_INTERVAL_MAPPED,
	.parse = heap_parse,
	.allocate = heap_allocate,
	.list = heap_list,
	.map = dmabuf_map,
	.write = host_write,
	.read = host_read,
	.zero = host_zero,
	.release = dmabuf_release,
};
