/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Exporter "cuda": memory of an NVIDIA GPU, which CUDA allocates, exports and copies. */
#include "buffer/cuda-driver.h"
#include "buffer/gpu.h"

static const struct gpu_runtime runtime;

static int load(void)
{
	int result, ret = cuda_load();

	if (ret)
		return ret;
	/* Repeated calls are cheap, and one may succeed after an earlier one has failed. */
	result = cuda_driver.init(0);
	return result ? gpu_fail(&runtime, result, "the driver cannot be used (\"%s\" lists the "
				 "devices)", runtime.lister) : 0;
}

static const char *error_text(int result)
{
	const char *text;

	return cuda_driver.error_text(result, &text) ? NULL : text;
}

static int device_count(int *count)
{
	return cuda_driver.device_count(count);
}

static int device_get(int *device, int number)
{
	return cuda_driver.device_get(device, number);
}

static int device_by_address(int *device, const char *address)
{
	return cuda_driver.device_by_address(device, address);
}

static int device_name(char *name, int size, int device)
{
	return cuda_driver.device_name(name, size, device);
}

static int device_address(char *address, int size, int device)
{
	return cuda_driver.device_address(address, size, device);
}

/* Returns 0 as well if the driver is older than the attribute. */
static int attribute_of(int device, enum cuda_attribute attribute)
{
	int value = 0;

	return cuda_driver.device_attribute(&value, attribute, device) ? 0 : value;
}

static const char *why_no_export(int device)
{
	if (cuda_driver.export_range && attribute_of(device, CUDA_ATTRIBUTE_DMA_BUF_SUPPORTED))
		return NULL;
	return "it needs NVIDIA's open kernel modules, 515 or later";
}

/*
 * Where the driver has no flush, a copy does: work that CUDA starts after the DMA has completed
 * comes after it (NVIDIA's guide to GPUDirect RDMA, "Synchronization and Memory Ordering").
 */
static enum gpu_flush flush_needed(int device)
{
	if (attribute_of(device, CUDA_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING) >=
	    CUDA_WRITES_ORDERED_FOR_OWNER)
		return GPU_FLUSH_NONE;
	if (cuda_driver.flush_writes &&
	    attribute_of(device, CUDA_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS) &
	    CUDA_FLUSH_BY_HOST)
		return GPU_FLUSH_CALL;
	return GPU_FLUSH_COPY;
}

static int attach(struct gpu_context *context)
{
	cuda_context handle;
	int result = cuda_driver.context_retain(&handle, context->device);

	if (!result)
		context->handle = handle;
	return result;
}

static void detach(const struct gpu_context *context)
{
	cuda_driver.context_release(context->device);
}

static int enter(const struct gpu_context *context, int *before)
{
	*before = 0;	/* CUDA has a stack of contexts */
	return cuda_driver.context_push(context->handle);
}

static void leave(int before)
{
	cuda_context popped;

	(void)before;
	cuda_driver.context_pop(&popped);
}

static int memory_info(size_t *available, size_t *total)
{
	return cuda_driver.memory_info(available, total);
}

/* A context takes seconds to make and much memory, so only one that the program has is asked. */
static uint64_t free_bytes(int device)
{
	struct gpu_context context = { .device = device };
	int before, is_active = 0;
	size_t available, total;
	unsigned flags;
	bool is_known;

	if (cuda_driver.context_state(device, &flags, &is_active) || !is_active || attach(&context))
		return 0;
	is_known = !enter(&context, &before);
	if (is_known) {
		is_known = !memory_info(&available, &total);
		leave(before);
	}
	detach(&context);
	return is_known ? available : 0;
}

static int allocate(uint64_t *address, size_t size)
{
	return cuda_driver.allocate(address, size);
}

static void free_memory(uint64_t address)
{
	cuda_driver.free(address);
}

static int address_range(uint64_t *begin, size_t *size, uint64_t address)
{
	return cuda_driver.address_range(begin, size, address);
}

/* Memory of cuMemMap() and of pools belongs to no context. */
static int find_pointer(struct gpu_pointer *found, uint64_t address)
{
	cuda_context context = NULL;
	unsigned type, is_managed = 0;
	int result, ordinal;

	result = cuda_driver.pointer_get(&type, CUDA_POINTER_MEMORY_TYPE, address);
	if (!result)
		result = cuda_driver.pointer_get(&ordinal, CUDA_POINTER_DEVICE_ORDINAL, address);
	if (!result)
		result = cuda_driver.device_get(&found->context.device, ordinal);
	if (result)
		return result;
	if (cuda_driver.pointer_get(&context, CUDA_POINTER_CONTEXT, address))
		context = NULL;
	/* Managed memory is on the host now and then, and CUDA copies it wherever it is. */
	cuda_driver.pointer_get(&is_managed, CUDA_POINTER_IS_MANAGED, address);
	found->context.handle = context;
	found->is_host = type == CUDA_MEMORY_HOST && !is_managed;
	found->may_span = !context;
	return 0;
}

/*
 * Where GPU and host share memory, only a mapping with CUDA_RANGE_FLAG_PCIE goes through the BAR.
 * Other machines and older drivers refuse the flag.
 *
 * NVIDIA demands SYNC_MEMOPS for memory that other devices reach by DMA. Without it, a synchronous
 * copy or memset of the program could return early, and then write over what DMA has brought. The
 * attribute belongs to the whole allocation, which may be the caller's: there it makes only such
 * calls wait, and it stays set, because nobody can tell when the last user of the memory has gone.
 */
static int export_range(int *fd, uint64_t address, uint64_t size, const char *device)
{
	const int on = 1;
	int result = cuda_driver.export_range(fd, address, size, CUDA_HANDLE_DMA_BUF_FD,
					      CUDA_RANGE_FLAG_PCIE);

	if (result)
		result = cuda_driver.export_range(fd, address, size, CUDA_HANDLE_DMA_BUF_FD, 0);
	if (result)
		return gpu_fail(&runtime, result, "%s exports no dma-buf", device);
	cuda_driver.pointer_set(&on, CUDA_POINTER_SYNC_MEMOPS, address);
	return 0;
}

static int flush(int device)
{
	(void)device;	/* the context is of this device */
	return cuda_driver.flush_writes(CUDA_FLUSH_CURRENT_CONTEXT, CUDA_FLUSH_TO_OWNER);
}

static int stream_create(void **stream)
{
	cuda_stream created;
	int result = cuda_driver.stream_create(&created, CUDA_STREAM_NON_BLOCKING);

	if (!result)
		*stream = created;
	return result;
}

static void stream_destroy(void *stream)
{
	cuda_driver.stream_destroy(stream);
}

static int stream_wait(void *stream)
{
	return cuda_driver.stream_wait(stream);
}

static int copy_in(uint64_t to, const void *from, size_t length, void *stream)
{
	return cuda_driver.copy_in(to, from, length, stream);
}

static int copy_out(void *to, uint64_t from, size_t length, void *stream)
{
	return cuda_driver.copy_out(to, from, length, stream);
}

static int zero(uint64_t to, size_t length, void *stream)
{
	return cuda_driver.fill(to, 0, length, stream);
}

static int host_register(void *memory, size_t length)
{
	return cuda_driver.host_register(memory, length, CUDA_REGISTER_PORTABLE);
}

static void host_unregister(void *memory)
{
	cuda_driver.host_unregister(memory);
}

static const struct gpu_runtime runtime = {
	.name = "cuda",
	.title = "CUDA",
	.lister = "nvidia-smi -L",
	.load = load,
	.error_text = error_text,
	.device_count = device_count,
	.device_get = device_get,
	.device_by_address = device_by_address,
	.device_name = device_name,
	.device_address = device_address,
	.why_no_export = why_no_export,
	.flush_needed = flush_needed,
	.free_bytes = free_bytes,
	.attach = attach,
	.detach = detach,
	.enter = enter,
	.leave = leave,
	.memory_info = memory_info,
	.allocate = allocate,
	.free = free_memory,
	.address_range = address_range,
	.export_range = export_range,
	.flush = flush,
	.stream_create = stream_create,
	.stream_destroy = stream_destroy,
	.stream_wait = stream_wait,
	.copy_in = copy_in,
	.copy_out = copy_out,
	.zero = zero,
	.host_register = host_register,
	.host_unregister = host_unregister,
	.find_pointer = find_pointer,
};

static int cuda_allocate(struct fdmabuf_buffer *buffer, const struct fdmabuf_memory *memory)
{
	return gpu_allocate(&runtime, buffer, memory);
}

static int cuda_import(struct fdmabuf_buffer *buffer, uint64_t address, uint64_t size)
{
	return gpu_import(&runtime, buffer, address, size);
}

static int cuda_list(const struct exporter_report *report)
{
	return gpu_list(&runtime, report);
}

const struct exporter exporter_cuda = {
	.number = FDMABUF_EXPORTER_CUDA,
	.name = "cuda",
	.options = OPTION_DEVICE | OPTION_NUMBER,
	.look_interval = LOOK_INTERVAL_COPIED,
	.parse = gpu_parse,
	.allocate = cuda_allocate,
	.import_address = cuda_import,
	.list = cuda_list,
	.release = gpu_release,
	.write = gpu_write,
	.read = gpu_read,
	.zero = gpu_zero,
	.pin_host = gpu_pin_host,
	.flush = gpu_flush,
};
