/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Exporter "hip": memory of an AMD GPU, which ROCm's HIP allocates, exports and copies. */
#include <unistd.h>

#include "base/arithmetic.h"
#include "base/error.h"
#include "buffer/gpu.h"
#include "buffer/hip-driver.h"

/*
 * HIP takes smaller allocations from blocks of this many bytes, and rounds larger ones up to a
 * multiple.
 */
#define BLOCK (2ull << 20)

static const struct gpu_runtime runtime;

/*
 * HIP keeps the last error of each thread, for hipGetLastError(). The program that uses the library
 * must not find an error there that the library has handled.
 */
static int handled(int result)
{
	if (result)
		hip_driver.last_error();
	return result;
}

static void *to_pointer(uint64_t address)
{
	return (void *)(uintptr_t)address;
}

static int load(void)
{
	int result, ret = hip_load();

	if (ret)
		return ret;
	result = handled(hip_driver.init(0));
	return result ? gpu_fail(&runtime, result, "the runtime cannot be used (\"%s\" lists the "
				 "devices; /dev/kfd has to be accessible)", runtime.lister) : 0;
}

static const char *error_text(int result)
{
	return hip_driver.error_text(result);
}

static int device_count(int *count)
{
	return handled(hip_driver.device_count(count));
}

static int device_get(int *device, int number)
{
	return handled(hip_driver.device_get(device, number));
}

static int device_by_address(int *device, const char *address)
{
	return handled(hip_driver.device_by_address(device, address));
}

static int device_name(char *name, int size, int device)
{
	return handled(hip_driver.device_name(name, size, device));
}

static int device_address(char *address, int size, int device)
{
	return handled(hip_driver.device_address(address, size, device));
}

/* A runtime that does not know the attribute may export nevertheless. */
static const char *why_no_export(int device)
{
	int value;

	if (!hip_driver.export_range)
		return "it needs ROCm 7 or later";
	if (!handled(hip_driver.device_attribute(&value, HIP_ATTRIBUTE_DMA_BUF_SUPPORTED,
						 device)) && !value)
		return "it needs a kernel with CONFIG_PCI_P2PDMA and CONFIG_DMABUF_MOVE_NOTIFY";
	return NULL;
}

/*
 * Returns the register that flushes what came over PCIe and is not in the memory of the GPU yet, or
 * NULL if the GPU needs no such flush.
 */
static volatile uint32_t *flush_register(int device)
{
	union {
		int value;
		uint32_t *pointer;
	} attribute = { .pointer = NULL };

	if (handled(hip_driver.device_attribute(&attribute.value,
						HIP_ATTRIBUTE_HDP_MEM_FLUSH_CNTL, device)))
		return NULL;
	return attribute.pointer;
}

static enum gpu_flush flush_needed(int device)
{
	return flush_register(device) ? GPU_FLUSH_CALL : GPU_FLUSH_NONE;
}

static int flush(int device)
{
	volatile uint32_t *reg = flush_register(device);

	if (!reg)
		return GPU_ERROR_NOT_SUPPORTED;
	*reg = 1;
	(void)*reg;	/* a read does not return before the write has arrived */
	return 0;
}

/* HIP has a current device of each thread, and no contexts. */
static int attach(struct gpu_context *context)
{
	context->handle = NULL;
	return 0;
}

static void detach(const struct gpu_context *context)
{
	(void)context;
}

static int enter(const struct gpu_context *context, int *before)
{
	int result = handled(hip_driver.get_current(before));

	return result ? result : handled(hip_driver.set_current(context->device));
}

static void leave(int before)
{
	handled(hip_driver.set_current(before));
}

static int memory_info(size_t *available, size_t *total)
{
	return handled(hip_driver.memory_info(available, total));
}

static uint64_t free_bytes(int device)
{
	const struct gpu_context context = { .device = device };
	size_t available, total;
	int result, before;

	if (enter(&context, &before))
		return 0;
	result = memory_info(&available, &total);
	leave(before);
	return result ? 0 : available;
}

/* An allocation of a whole block or more has a dma-buf of its own. */
static int allocate(uint64_t *address, size_t size)
{
	void *memory = NULL;
	int result = handled(hip_driver.allocate(&memory, max_u64(size, BLOCK)));

	*address = (uintptr_t)memory;
	return result;
}

static void free_memory(uint64_t address)
{
	handled(hip_driver.free(to_pointer(address)));
}

static int address_range(uint64_t *begin, size_t *size, uint64_t address)
{
	void *pointer = NULL;
	int result = handled(hip_driver.address_range(&pointer, size, to_pointer(address)));

	*begin = (uintptr_t)pointer;
	return result;
}

static int find_pointer(struct gpu_pointer *found, uint64_t address)
{
	void *pointer = to_pointer(address);
	uint64_t type = 0;	/* room for runtimes that write more than an enum */
	int version, result;

	*found = (struct gpu_pointer){ 0 };
	result = handled(hip_driver.version(&version));
	if (!result)
		result = handled(hip_driver.pointer_get(&type, HIP_POINTER_MEMORY_TYPE, pointer));
	if (result)
		return result;
	found->is_host = (uint32_t)type <= (version < HIP_VERSION_6 ? HIP_MEMORY_HOST_BEFORE_6 :
					    HIP_MEMORY_HOST);
	return handled(hip_driver.pointer_get(&found->context.device, HIP_POINTER_DEVICE_ORDINAL,
					      pointer));
}

/* Returns true if a dma-buf is of an allocation of @size bytes only, not of a block of several. */
static bool is_dmabuf_of(int fd, uint64_t size)
{
	off_t length = lseek(fd, 0, SEEK_END);
	uint64_t unit = size > BLOCK ? BLOCK : (uint64_t)getpagesize();

	return length >= 0 && (uint64_t)length <= align_up(size, unit);
}

/*
 * HIP exports the whole object of the kernel that the address is in, and does not tell where in it
 * the address is. So only the begin of an allocation that has an object of its own is right: with
 * any other, DMA would go to the memory of somebody else.
 */
static int export_range(int *fd, uint64_t address, uint64_t size, const char *device)
{
	uint64_t begin;
	size_t length;
	int result = address_range(&begin, &length, address);

	if (!result && begin != address)
		return fail(EOPNOTSUPP, "hip: the memory begins in the middle of an allocation, "
			    "which HIP exports as a whole: import from its begin");
	if (!result)
		result = handled(hip_driver.export_range(fd, to_pointer(address), size,
							 HIP_HANDLE_DMA_BUF_FD, 0));
	if (result)
		return gpu_fail(&runtime, result, "%s exports no dma-buf", device);
	if (is_dmabuf_of(*fd, length))
		return 0;
	close(*fd);
	return fail(EOPNOTSUPP, "hip: HIP exports the memory with its neighbours: allocate at "
		    "least %llu MiB at once", BLOCK >> 20);
}

static int stream_create(void **stream)
{
	hip_stream created;
	int result = handled(hip_driver.stream_create(&created, HIP_STREAM_NON_BLOCKING));

	if (!result)
		*stream = created;
	return result;
}

static void stream_destroy(void *stream)
{
	handled(hip_driver.stream_destroy(stream));
}

static int stream_wait(void *stream)
{
	return handled(hip_driver.stream_wait(stream));
}

static int copy_in(uint64_t to, const void *from, size_t length, void *stream)
{
	return handled(hip_driver.copy(to_pointer(to), from, length, HIP_COPY_HOST_TO_DEVICE,
				       stream));
}

static int copy_out(void *to, uint64_t from, size_t length, void *stream)
{
	return handled(hip_driver.copy(to, to_pointer(from), length, HIP_COPY_DEVICE_TO_HOST,
				       stream));
}

static int zero(uint64_t to, size_t length, void *stream)
{
	return handled(hip_driver.fill(to_pointer(to), 0, length, stream));
}

static int host_register(void *memory, size_t length)
{
	return handled(hip_driver.host_register(memory, length, HIP_REGISTER_PORTABLE));
}

static void host_unregister(void *memory)
{
	handled(hip_driver.host_unregister(memory));
}

static const struct gpu_runtime runtime = {
	.name = "hip",
	.title = "HIP",
	.lister = "amd-smi list",
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

static int hip_allocate(struct fdmabuf_buffer *buffer, const struct fdmabuf_memory *memory)
{
	return gpu_allocate(&runtime, buffer, memory);
}

static int hip_import(struct fdmabuf_buffer *buffer, uint64_t address, uint64_t size)
{
	return gpu_import(&runtime, buffer, address, size);
}

static int hip_list(const struct exporter_report *report)
{
	return gpu_list(&runtime, report);
}

const struct exporter exporter_hip = {
	.number = FDMABUF_EXPORTER_HIP,
	.name = "hip",
	.options = OPTION_DEVICE | OPTION_NUMBER,
	.look_interval = LOOK_INTERVAL_COPIED,
	.parse = gpu_parse,
	.allocate = hip_allocate,
	.import_address = hip_import,
	.list = hip_list,
	.release = gpu_release,
	.write = gpu_write,
	.read = gpu_read,
	.zero = gpu_zero,
	.pin_host = gpu_pin_host,
	.flush = gpu_flush,
};
