/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Exporter "cuda": memory of an NVIDIA GPU, which CUDA allocates, exports and copies. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "base/descriptor.h"
#include "base/error.h"
#include "buffer/cuda-driver.h"
#include "buffer/exporter.h"

struct cuda_memory {
	const struct cuda_driver *driver;
	int device;
	char name[64];
	/* The device's primary context, which the CUDA runtime and PyTorch use as well. */
	cuda_context context;
	cuda_pointer pointer;	/* the allocation; the buffer begins at its first whole page */
	cuda_stream stream;	/* of this buffer only, so that it never waits for other work */
	bool needs_flush;
};

/* Makes the buffer's context current for this thread, until leave_context() or a context_pop(). */
static int enter_context(struct cuda_memory *cuda)
{
	int result = cuda->driver->context_push(cuda->context);

	if (result)
		return cuda_fail(cuda->driver, result, "cannot use the context of %s", cuda->name);
	return 0;
}

/*
 * Waits for the stream, because even "synchronous" copies from pageable memory may return before
 * the last bytes have arrived, and leaves the context. Returns a negative errno if @result, of the
 * function that started the work, or the work itself is an error. @action is for the text.
 */
static int leave_context(struct cuda_memory *cuda, int result, const char *action)
{
	cuda_context popped;

	if (!result)
		result = cuda->driver->stream_wait(cuda->stream);
	cuda->driver->context_pop(&popped);
	return result ? cuda_fail(cuda->driver, result, "%s %s", action, cuda->name) : 0;
}

static int cuda_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data,
		      uint64_t length)
{
	struct cuda_memory *cuda = buffer->cuda;
	int result, ret = enter_context(cuda);

	if (ret)
		return ret;
	result = cuda->driver->copy_in(buffer->address + offset, data, length, cuda->stream);
	return leave_context(cuda, result, "copying to");
}

static int cuda_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length)
{
	struct cuda_memory *cuda = buffer->cuda;
	int result, ret = enter_context(cuda);

	if (ret)
		return ret;
	result = cuda->driver->copy_out(data, buffer->address + offset, length, cuda->stream);
	return leave_context(cuda, result, "copying from");
}

static int cuda_zero(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length)
{
	struct cuda_memory *cuda = buffer->cuda;
	int result, ret = enter_context(cuda);

	if (ret)
		return ret;
	result = cuda->driver->fill(buffer->address + offset, 0, length, cuda->stream);
	return leave_context(cuda, result, "zeroing memory of");
}

/*
 * Host memory that a context knows. It keeps the context, and not the buffer that it was pinned
 * for.
 */
struct cuda_pin {
	struct host_pin pin;
	const struct cuda_driver *driver;
	int device;
	cuda_context context;
	void *memory;
};

static void release_pin(struct host_pin *pin)
{
	struct cuda_pin *cuda = (struct cuda_pin *)pin;
	cuda_context popped;

	if (!cuda->driver->context_push(cuda->context)) {
		cuda->driver->host_unregister(cuda->memory);
		cuda->driver->context_pop(&popped);
	}
	cuda->driver->context_release(cuda->device);
	free(cuda);
}

static bool register_host(const struct cuda_memory *cuda, void *memory, size_t length)
{
	cuda_context popped;
	int result = cuda->driver->context_push(cuda->context);

	if (result)
		return false;
	result = cuda->driver->host_register(memory, length, CUDA_HOST_REGISTER_PORTABLE);
	cuda->driver->context_pop(&popped);
	return !result;
}

/* Lets the GPU's copy engine read @memory directly, without a copy by the CPU in between. */
static struct host_pin *cuda_pin_host(struct fdmabuf_buffer *buffer, void *memory, size_t length)
{
	const struct cuda_memory *cuda = buffer->cuda;
	struct cuda_pin *pin = calloc(1, sizeof(*pin));

	if (!pin)
		return NULL;
	*pin = (struct cuda_pin){
		.pin.release = release_pin,
		.driver = cuda->driver,
		.device = cuda->device,
		.memory = memory,
	};
	if (pin->driver->context_retain(&pin->context, pin->device)) {
		free(pin);
		return NULL;
	}
	if (!register_host(cuda, memory, length)) {
		pin->driver->context_release(pin->device);
		free(pin);
		return NULL;
	}
	return &pin->pin;
}

/* Makes the DMA of the NVMe controller visible to work that the GPU starts after this call. */
static int cuda_flush(struct fdmabuf_buffer *buffer)
{
	struct cuda_memory *cuda = buffer->cuda;
	int result, ret;

	if (!cuda->needs_flush)
		return 0;
	ret = enter_context(cuda);
	if (ret)
		return ret;
	result = cuda->driver->flush_writes(CUDA_FLUSH_CURRENT_CONTEXT, CUDA_FLUSH_TO_OWNER);
	return leave_context(cuda, result, "making DMA visible to");
}

/* A text of digits is CUDA's number of a device (see CUDA_VISIBLE_DEVICES), others an address. */
static int cuda_parse(const char *argument, struct fdmabuf_memory *memory)
{
	char *rest;
	long number;

	errno = 0;
	number = strtol(argument, &rest, 10);
	if (isdigit((unsigned char)*argument) && !*rest && !errno && number <= INT_MAX)
		memory->number = number;
	else
		memory->device = argument;
	return 0;
}

/* Sets cuda->device and cuda->name. */
static int find_device(struct cuda_memory *cuda, const struct fdmabuf_memory *memory)
{
	const struct cuda_driver *driver = cuda->driver;
	const char *device = memory->device;
	char number[16];
	int result;

	snprintf(number, sizeof(number), "%u", memory->number);
	if (device)
		result = driver->device_by_address(&cuda->device, device);
	else
		result = driver->device_get(&cuda->device, memory->number);
	device = device ? device : number;
	if (result == CUDA_ERROR_INVALID_VALUE)
		return fail(EINVAL, "cuda: \"%s\" is no device: write cuda:NUMBER, "
			    "or cuda:DOMAIN:BUS:DEV.FN, for example cuda:0000:03:00.0", device);
	if (result)
		return cuda_fail(driver, result, "device %s (\"nvidia-smi -L\" lists them)",
				 device);
	if (driver->device_name(cuda->name, sizeof(cuda->name), cuda->device))
		snprintf(cuda->name, sizeof(cuda->name), "device %s", device);
	return 0;
}

/* Sets the text for @result of an allocation of @size bytes, and returns a negative errno. */
static int allocate_error(struct cuda_memory *cuda, int result, uint64_t size)
{
	size_t available, total;

	if (result != CUDA_ERROR_OUT_OF_MEMORY || cuda->driver->memory_info(&available, &total))
		return cuda_fail(cuda->driver, result, "allocating memory of %s", cuda->name);
	return fail(ENOSPC, "cuda: %s has %zu MiB free of %zu MiB, %llu MiB are needed: "
		    "end programs that use the device, or choose another device", cuda->name,
		    available >> 20, total >> 20,
		    (unsigned long long)align_up(size, 1 << 20) >> 20);
}

/*
 * Allocates a buffer that begins at a page of the host, as a dma-buf must. Small allocations of
 * CUDA may begin in the middle of a page.
 */
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
	/*
	 * NVIDIA demands this attribute for memory that other devices reach by DMA. CUDA's manual
	 * says that it "insures that synchronous memory operations are synchronous".
	 */
	driver->pointer_set(&on, CUDA_POINTER_ATTRIBUTE_SYNC_MEMOPS, cuda->pointer);
	buffer->address = align_up(cuda->pointer, page);
	buffer->size = size;
	return 0;
}

/* Sets dmabuf_fd, or no_dmabuf_reason if the export fails. Copies work without a dma-buf. */
static void export_pages(struct fdmabuf_buffer *buffer)
{
	struct cuda_memory *cuda = buffer->cuda;
	const struct cuda_driver *driver = cuda->driver;
	int result, supported = 0, ordering = 0, fd = -1;

	if (!driver->export_range ||
	    driver->device_attribute(&supported, CUDA_ATTRIBUTE_DMA_BUF_SUPPORTED, cuda->device) ||
	    !supported) {
		snprintf(buffer->no_dmabuf_reason, sizeof(buffer->no_dmabuf_reason),
			 "%s exports no dma-buf: "
			 "it needs NVIDIA's open kernel modules, 515 or later", cuda->name);
		return;
	}
	/*
	 * Where GPU and host share memory, only a mapping with this flag goes through the BAR.
	 * Other machines and older drivers refuse the flag.
	 */
	result = driver->export_range(&fd, buffer->address, buffer->size, CUDA_HANDLE_DMA_BUF_FD,
				      CUDA_RANGE_FLAG_PCIE);
	if (result)
		result = driver->export_range(&fd, buffer->address, buffer->size,
					      CUDA_HANDLE_DMA_BUF_FD, 0);
	if (result) {
		cuda_fail(driver, result, "%s exports no dma-buf", cuda->name);
		snprintf(buffer->no_dmabuf_reason, sizeof(buffer->no_dmabuf_reason), "%s",
			 fdmabuf_error());
		return;
	}
	buffer->dmabuf_fd = fd;
	driver->device_attribute(&ordering, CUDA_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING,
				 cuda->device);
	cuda->needs_flush = driver->flush_writes && ordering < CUDA_WRITES_ORDERED_FOR_OWNER;
}

/* Creates the stream, the memory and the dma-buf, in the context of the device. */
static int create_memory(struct fdmabuf_buffer *buffer, uint64_t size)
{
	struct cuda_memory *cuda = buffer->cuda;
	int result, ret = enter_context(cuda);
	cuda_context popped;

	if (ret)
		return ret;
	result = cuda->driver->stream_create(&cuda->stream, CUDA_STREAM_NON_BLOCKING);
	if (result)
		ret = cuda_fail(cuda->driver, result, "cannot create a stream of %s", cuda->name);
	else
		ret = allocate_pages(buffer, size);
	if (!ret)
		export_pages(buffer);
	cuda->driver->context_pop(&popped);
	return ret;
}

static int cuda_allocate(struct fdmabuf_buffer *buffer, const struct fdmabuf_memory *memory)
{
	const struct cuda_driver *driver;
	struct cuda_memory *cuda;
	int ret, result, error;

	driver = cuda_driver(&error);
	if (!driver)
		return -error;
	cuda = calloc(1, sizeof(*cuda));
	if (!cuda)
		return fail(ENOMEM, "cuda: out of memory");
	buffer->cuda = cuda;
	cuda->driver = driver;
	ret = find_device(cuda, memory);
	if (ret)
		return ret;
	result = driver->context_retain(&cuda->context, cuda->device);
	if (result) {
		cuda->context = NULL;
		return cuda_fail(driver, result, "cannot use the context of %s", cuda->name);
	}
	snprintf(buffer->device, sizeof(buffer->device), "cuda %s", cuda->name);
	return create_memory(buffer, memory->bytes);
}

static void cuda_release(struct fdmabuf_buffer *buffer)
{
	struct cuda_memory *cuda = buffer->cuda;
	cuda_context popped;

	close_fd(&buffer->dmabuf_fd);
	if (!cuda)
		return;
	if (cuda->context && !enter_context(cuda)) {
		if (cuda->pointer)
			cuda->driver->free(cuda->pointer);
		if (cuda->stream)
			cuda->driver->stream_destroy(cuda->stream);
		cuda->driver->context_pop(&popped);
	}
	if (cuda->context)
		cuda->driver->context_release(cuda->device);
	free(cuda);
}

const struct exporter exporter_cuda = {
	.number = FDMABUF_EXPORTER_CUDA,
	.name = "cuda",
	.options = OPTION_DEVICE | OPTION_NUMBER,
	.look_interval = LOOK_INTERVAL_COPIED,
	.parse = cuda_parse,
	.allocate = cuda_allocate,
	.release = cuda_release,
	.write = cuda_write,
	.read = cuda_read,
	.zero = cuda_zero,
	.pin_host = cuda_pin_host,
	.flush = cuda_flush,
};
