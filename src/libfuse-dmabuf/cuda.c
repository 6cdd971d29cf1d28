/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory of an NVIDIA GPU: CUDA allocates it, exports it as a dma-buf where it can, and copies. */
#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda-driver.h"
#include "internal.h"

struct cuda_memory {
	const struct cuda_driver *driver;
	int device;
	char name[64];
	cuda_context context;	/* the device's primary one, which the CUDA runtime and PyTorch use as well */
	cuda_pointer pointer;	/* what was allocated; the buffer begins at its first whole page */
	cuda_stream stream;	/* of our own: it waits for nobody else's work */
	bool needs_flush;
};

/*
 * Whatever context the thread has, ours is the current one between begin() and end(). The stream has been waited for
 * at the end, because even "synchronous" copies from pageable memory may return before the last bytes have arrived.
 */
static int begin(struct cuda_memory *cuda)
{
	int result = cuda->driver->context_push(cuda->context);

	return result ? cuda_fail(cuda->driver, result, "the context of %s", cuda->name) : 0;
}

static int end(struct cuda_memory *cuda, int result, const char *what)
{
	cuda_context ours;

	if (!result)
		result = cuda->driver->stream_wait(cuda->stream);
	cuda->driver->context_pop(&ours);
	return result ? cuda_fail(cuda->driver, result, "%s %s", what, cuda->name) : 0;
}

static int cuda_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data, uint64_t length)
{
	struct cuda_memory *cuda = buffer->cuda;
	int ret = begin(cuda);

	if (ret)
		return ret;
	return end(cuda, cuda->driver->copy_in(buffer->address + offset, data, length, cuda->stream), "copying to");
}

static int cuda_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length)
{
	struct cuda_memory *cuda = buffer->cuda;
	int ret = begin(cuda);

	if (ret)
		return ret;
	return end(cuda, cuda->driver->copy_out(data, buffer->address + offset, length, cuda->stream), "copying from");
}

static int cuda_zero(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length)
{
	struct cuda_memory *cuda = buffer->cuda;
	int ret = begin(cuda);

	if (ret)
		return ret;
	return end(cuda, cuda->driver->fill(buffer->address + offset, 0, length, cuda->stream), "zeroing memory of");
}

static bool cuda_pin_host(struct fdmabuf_buffer *buffer, void *memory, size_t length)
{
	struct cuda_memory *cuda = buffer->cuda;

	/* The GPU's copy engine then takes it from there, without a copy by the CPU in between. */
	return !begin(cuda) && !end(cuda, cuda->driver->host_register(memory, length, 0), "pinning memory for");
}

static void cuda_unpin_host(struct fdmabuf_buffer *buffer, void *memory)
{
	struct cuda_memory *cuda = buffer->cuda;

	if (!begin(cuda))
		end(cuda, cuda->driver->host_unregister(memory), "unpinning memory of");
}

/* Work that is given to the GPU afterwards sees what the NVMe controller has written. */
static int cuda_flush(struct fdmabuf_buffer *buffer)
{
	struct cuda_memory *cuda = buffer->cuda;
	int ret;

	if (!cuda->needs_flush)
		return 0;
	ret = begin(cuda);
	if (ret)
		return ret;
	return end(cuda, cuda->driver->flush_writes(CUDA_FLUSH_CURRENT_CONTEXT, CUDA_FLUSH_TO_OWNER), "making DMA visible to");
}

/* As CUDA counts them (CUDA_VISIBLE_DEVICES), or by PCI address. */
static int find_device(struct cuda_memory *cuda, const char *which)
{
	const struct cuda_driver *driver = cuda->driver;
	char *rest;
	long ordinal;
	int result;

	if (!which)
		which = "0";
	errno = 0;
	ordinal = strtol(which, &rest, 10);
	if (isdigit((unsigned char)*which) && !*rest && !errno && ordinal <= INT_MAX)
		result = driver->device_get(&cuda->device, ordinal);
	else
		result = driver->device_by_address(&cuda->device, which);
	if (result == CUDA_ERROR_INVALID_VALUE)
		return fail(EINVAL, "cuda: \"%s\" is no device: write cuda:NUMBER, or cuda:DOMAIN:BUS:DEV.FN, for example cuda:0000:03:00.0",
			    which);
	if (result)
		return cuda_fail(driver, result, "device %s (\"nvidia-smi -L\" lists them)", which);
	if (driver->device_name(cuda->name, sizeof(cuda->name), cuda->device))
		snprintf(cuda->name, sizeof(cuda->name), "device %s", which);
	return 0;
}

static int allocate_error(struct cuda_memory *cuda, int result, uint64_t size)
{
	size_t available, total;

	if (result != CUDA_ERROR_OUT_OF_MEMORY || cuda->driver->memory_info(&available, &total))
		return cuda_fail(cuda->driver, result, "memory of %s", cuda->name);
	return fail(ENOSPC, "cuda: %s has %zu MiB free of %zu MiB, %llu MiB are needed: end what uses it, or choose another device",
		    cuda->name, available >> 20, total >> 20, (unsigned long long)align_up(size, 1 << 20) >> 20);
}

/* A dma-buf begins and ends with whole pages of the host; small allocations need not. */
static int allocate_pages(struct fdmabuf_buffer *buffer, uint64_t size)
{
	struct cuda_memory *cuda = buffer->cuda;
	const struct cuda_driver *driver = cuda->driver;
	uint64_t page = getpagesize();
	const int on = 1;
	int result = driver->allocate(&cuda->pointer, size);

	if (!result && cuda->pointer % page) {
		driver->free(cuda->pointer);
		cuda->pointer = 0;
		result = driver->allocate(&cuda->pointer, size + page);
	}
	if (result) {
		cuda->pointer = 0;
		return allocate_error(cuda, result, size);
	}
	/* "Insures that synchronous memory operations are synchronous": NVIDIA's rule for memory that others reach by DMA. */
	driver->pointer_set(&on, CUDA_POINTER_ATTRIBUTE_SYNC_MEMOPS, cuda->pointer);
	buffer->address = align_up(cuda->pointer, page);
	buffer->size = size;
	return 0;
}

/* Where this fails, copies are still possible. */
static void export_pages(struct fdmabuf_buffer *buffer)
{
	struct cuda_memory *cuda = buffer->cuda;
	const struct cuda_driver *driver = cuda->driver;
	int result, supported = 0, ordering = 0, fd = -1;

	if (!driver->export_range ||
	    driver->device_attribute(&supported, CUDA_ATTRIBUTE_DMA_BUF_SUPPORTED, cuda->device) || !supported) {
		snprintf(buffer->no_dmabuf_reason, sizeof(buffer->no_dmabuf_reason),
			 "%s exports no dma-buf: it needs NVIDIA's open kernel modules, 515 or later", cuda->name);
		return;
	}
	/* On machines where GPU and host share memory, only this flag leads by way of the BAR; elsewhere, and in
	 * older drivers, it is not known. */
	result = driver->export_range(&fd, buffer->address, buffer->size, CUDA_HANDLE_DMA_BUF_FD, CUDA_RANGE_FLAG_PCIE);
	if (result)
		result = driver->export_range(&fd, buffer->address, buffer->size, CUDA_HANDLE_DMA_BUF_FD, 0);
	if (result) {
		cuda_fail(driver, result, "%s exports no dma-buf", cuda->name);
		snprintf(buffer->no_dmabuf_reason, sizeof(buffer->no_dmabuf_reason), "%s", fdmabuf_error());
		return;
	}
	buffer->dmabuf_fd = fd;
	driver->device_attribute(&ordering, CUDA_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING, cuda->device);
	cuda->needs_flush = driver->flush_writes && ordering < CUDA_WRITES_ORDERED_FOR_OWNER;
}

static int take_memory(struct fdmabuf_buffer *buffer, uint64_t size)
{
	struct cuda_memory *cuda = buffer->cuda;
	int result, ret = begin(cuda);
	cuda_context ours;

	if (ret)
		return ret;
	result = cuda->driver->stream_create(&cuda->stream, CUDA_STREAM_NON_BLOCKING);
	if (result)
		ret = cuda_fail(cuda->driver, result, "a stream of %s", cuda->name);
	else
		ret = allocate_pages(buffer, size);
	if (!ret)
		export_pages(buffer);
	cuda->driver->context_pop(&ours);
	return ret;
}

static int cuda_allocate(struct fdmabuf_buffer *buffer, const char *which, uint64_t size)
{
	const struct cuda_driver *driver;
	struct cuda_memory *cuda;
	int ret, result, error;

	if (!size)
		return fail(EINVAL, "cuda: give a size");
	driver = cuda_driver(&error);
	if (!driver)
		return -error;
	cuda = calloc(1, sizeof(*cuda));
	if (!cuda)
		return fail(ENOMEM, "cuda: out of memory");
	buffer->cuda = cuda;
	cuda->driver = driver;
	ret = find_device(cuda, which);
	if (ret)
		return ret;
	result = driver->context_retain(&cuda->context, cuda->device);
	if (result) {
		cuda->context = NULL;
		return cuda_fail(driver, result, "the context of %s", cuda->name);
	}
	return take_memory(buffer, size);
}

static void cuda_release(struct fdmabuf_buffer *buffer)
{
	struct cuda_memory *cuda = buffer->cuda;
	cuda_context ours;

	close_fd(&buffer->dmabuf_fd);
	if (!cuda)
		return;
	if (cuda->context && !begin(cuda)) {
		if (cuda->pointer)
			cuda->driver->free(cuda->pointer);
		if (cuda->stream)
			cuda->driver->stream_destroy(cuda->stream);
		cuda->driver->context_pop(&ours);
	}
	if (cuda->context)
		cuda->driver->context_release(cuda->device);
	free(cuda);
}

const struct exporter exporter_cuda = {
	.name = "cuda",
	.allocate = cuda_allocate,
	.release = cuda_release,
	.write = cuda_write,
	.read = cuda_read,
	.zero = cuda_zero,
	.pin_host = cuda_pin_host,
	.unpin_host = cuda_unpin_host,
	.flush = cuda_flush,
};
