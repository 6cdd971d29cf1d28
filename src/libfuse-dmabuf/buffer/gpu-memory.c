/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory of GPUs: allocates it, or takes the caller's, and exports it as a dma-buf. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "base/descriptor.h"
#include "base/error.h"
#include "buffer/gpu.h"
#include "buffer/pci.h"

/* Sets the text for @result of an allocation of @size bytes, and returns a negative errno. */
static int allocate_error(const struct gpu_memory *gpu, int result, uint64_t size)
{
	size_t available, total;

	if (result != GPU_ERROR_OUT_OF_MEMORY || gpu->runtime->memory_info(&available, &total))
		return gpu_fail(gpu->runtime, result, "allocating memory of %s", gpu->name);
	return fail(ENOSPC, "%s: %s has %zu MiB free of %zu MiB, %llu MiB are needed: "
		    "end programs that use the device, or choose another device",
		    gpu->runtime->name, gpu->name, available >> 20, total >> 20,
		    (unsigned long long)align_up(size, 1 << 20) >> 20);
}

/*
 * Allocates a buffer that begins at a page of the host, as a dma-buf must. Small allocations of
 * CUDA may begin in the middle of a page.
 */
static int allocate_pages(struct fdmabuf_buffer *buffer, uint64_t size)
{
	struct gpu_memory *gpu = buffer->gpu;
	const struct gpu_runtime *runtime = gpu->runtime;
	uint64_t address, page = getpagesize();
	int result = runtime->allocate(&address, size);

	if (!result && address % page) {
		runtime->free(address);
		result = runtime->allocate(&address, size + page);
	}
	if (result)
		return allocate_error(gpu, result, size);
	gpu->allocation = address;
	buffer->address = align_up(address, page);
	buffer->size = size;
	return 0;
}

/* Sets dmabuf_fd, or no_dmabuf_reason if the export fails. Copies work without a dma-buf. */
static void export_pages(struct fdmabuf_buffer *buffer)
{
	struct gpu_memory *gpu = buffer->gpu;
	const struct gpu_runtime *runtime = gpu->runtime;
	const char *why = runtime->why_no_export(gpu->own.device);
	int fd;

	if (why) {
		snprintf(buffer->no_dmabuf_reason, sizeof(buffer->no_dmabuf_reason),
			 "%s exports no dma-buf: %s", gpu->name, why);
	} else if (runtime->export_range(&fd, buffer->address, buffer->size, gpu->name)) {
		snprintf(buffer->no_dmabuf_reason, sizeof(buffer->no_dmabuf_reason), "%s",
			 fdmabuf_error());
	} else {
		buffer->dmabuf_fd = fd;
		gpu->flush = runtime->flush_needed(gpu->own.device);
	}
}

/* Makes buffer->gpu for a device whose own context it keeps, and names the device. */
static int use_device(const struct gpu_runtime *runtime, struct fdmabuf_buffer *buffer, int device)
{
	struct gpu_memory *gpu = calloc(1, sizeof(*gpu));
	char address[PCI_ADDRESS_SIZE];
	int result;

	if (!gpu)
		return fail(ENOMEM, "%s: out of memory", runtime->name);
	buffer->gpu = gpu;
	gpu->runtime = runtime;
	gpu->own.device = device;
	gpu_name_device(runtime, device, gpu->name, sizeof(gpu->name));
	snprintf(buffer->device, sizeof(buffer->device), "%s %s", runtime->name, gpu->name);
	if (!runtime->device_address(address, sizeof(address), device))
		buffer->numa_node = pci_numa_node(address);
	result = runtime->attach(&gpu->own);
	if (result)
		return gpu_fail(runtime, result, "cannot use the context of %s", gpu->name);
	gpu->is_attached = true;
	gpu->context = gpu->own;
	return 0;
}

int gpu_allocate(const struct gpu_runtime *runtime, struct fdmabuf_buffer *buffer,
		 const struct fdmabuf_memory *memory)
{
	int device, before, ret = runtime->load();

	if (!ret)
		ret = gpu_find_device(runtime, memory, &device);
	if (!ret)
		ret = use_device(runtime, buffer, device);
	if (!ret)
		ret = gpu_enter(buffer->gpu, &before);
	if (ret)
		return ret;
	ret = allocate_pages(buffer, memory->bytes);
	if (!ret)
		export_pages(buffer);
	runtime->leave(before);
	return ret;
}

/* Finds the device and the context of the caller's memory. */
static int find_memory(const struct gpu_runtime *runtime, struct gpu_pointer *found,
		       uint64_t address)
{
	unsigned long long shown = address;

	if (runtime->find_pointer(found, address))
		return fail(EFAULT, "%s: %#llx is no memory that %s has allocated in this process",
			    runtime->name, shown, runtime->title);
	if (found->is_host)
		return fail(EFAULT, "%s: %#llx is host memory: import it with "
			    "FDMABUF_EXPORTER_MEMORY", runtime->name, shown);
	return 0;
}

/* Returns -EFAULT if a part of the range is not memory, or belongs to another allocation. */
static int check_allocation(const struct gpu_runtime *runtime, const struct gpu_pointer *found,
			    uint64_t address, uint64_t size)
{
	uint64_t begin, end = address;
	size_t length;

	do {
		uint64_t at = end;
		int result = runtime->address_range(&begin, &length, at);

		if (result)
			return fail(EFAULT, "%s: %llu bytes at %#llx: there is no memory at %#llx",
				    runtime->name, (unsigned long long)size,
				    (unsigned long long)address, (unsigned long long)at);
		end = begin + length;
		if (end <= at)
			break;
	} while (found->may_span && end < address + size);
	if (end < address + size)
		return fail(EFAULT, "%s: %llu bytes at %#llx are more than the allocation has, "
			    "which ends at %#llx: import each allocation on its own",
			    runtime->name, (unsigned long long)size, (unsigned long long)address,
			    (unsigned long long)end);
	return 0;
}

static void export_callers_pages(struct fdmabuf_buffer *buffer)
{
	uint64_t page = getpagesize();

	if (buffer->address % page == 0 && buffer->size % page == 0)
		export_pages(buffer);
	else
		snprintf(buffer->no_dmabuf_reason, sizeof(buffer->no_dmabuf_reason),
			 "the memory begins or ends in the middle of a page, and only whole pages "
			 "have a dma-buf: import a range of multiples of %llu bytes",
			 (unsigned long long)page);
}

int gpu_import(const struct gpu_runtime *runtime, struct fdmabuf_buffer *buffer,
	       uint64_t address, uint64_t size)
{
	struct gpu_pointer found;
	int before, ret = runtime->load();

	if (!ret)
		ret = find_memory(runtime, &found, address);
	if (!ret)
		ret = use_device(runtime, buffer, found.context.device);
	if (ret)
		return ret;
	if (found.context.handle)
		buffer->gpu->context = found.context;
	ret = gpu_enter(buffer->gpu, &before);
	if (ret)
		return ret;
	ret = check_allocation(runtime, &found, address, size);
	if (!ret) {
		buffer->address = address;
		buffer->size = size;
		export_callers_pages(buffer);
	}
	runtime->leave(before);
	return ret;
}

void gpu_release(struct fdmabuf_buffer *buffer)
{
	struct gpu_memory *gpu = buffer->gpu;
	int before;

	close_fd(&buffer->dmabuf_fd);
	if (!gpu)
		return;
	if (gpu->is_attached && !gpu->runtime->enter(&gpu->context, &before)) {
		if (gpu->allocation)
			gpu->runtime->free(gpu->allocation);
		gpu_free_streams(gpu);
		gpu->runtime->leave(before);
	}
	if (gpu->is_attached)
		gpu->runtime->detach(&gpu->own);
	free(gpu);
}
