/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copies by a GPU, each on a stream that no other copy uses at the same time. */
#include "base/error.h"
#include "buffer/gpu.h"

struct copy {
	enum { COPY_IN, COPY_OUT, COPY_ZEROS } kind;
	uint64_t address;	/* of the device */
	const void *from;	/* COPY_IN */
	void *to;		/* COPY_OUT */
	uint64_t length;
};

int gpu_enter(const struct gpu_memory *gpu, int *before)
{
	int result = gpu->runtime->enter(&gpu->context, before);

	return result ? gpu_fail(gpu->runtime, result, "cannot use the context of %s", gpu->name) :
		0;
}

/* Sets *stream to one that only the caller uses, until keep_stream(). */
static int take_stream(struct gpu_memory *gpu, void **stream)
{
	for (unsigned i = 0; i < GPU_STREAMS_KEPT; i++) {
		*stream = atomic_exchange(&gpu->streams[i], NULL);
		if (*stream)
			return 0;
	}
	return gpu->runtime->stream_create(stream);
}

static void keep_stream(struct gpu_memory *gpu, void *stream)
{
	for (unsigned i = 0; i < GPU_STREAMS_KEPT; i++) {
		void *none = NULL;

		if (atomic_compare_exchange_strong(&gpu->streams[i], &none, stream))
			return;
	}
	gpu->runtime->stream_destroy(stream);
}

void gpu_free_streams(struct gpu_memory *gpu)
{
	for (unsigned i = 0; i < GPU_STREAMS_KEPT; i++)
		if (gpu->streams[i])
			gpu->runtime->stream_destroy(gpu->streams[i]);
}

static int start_copy(const struct gpu_runtime *runtime, const struct copy *copy, void *stream)
{
	switch (copy->kind) {
	case COPY_IN:
		return runtime->copy_in(copy->address, copy->from, copy->length, stream);
	case COPY_OUT:
		return runtime->copy_out(copy->to, copy->address, copy->length, stream);
	default:
		return runtime->zero(copy->address, copy->length, stream);
	}
}

/*
 * Copies, and waits for the stream, because even "synchronous" copies from pageable memory may
 * return before the last bytes have arrived. Returns a result of the runtime.
 */
static int run_copy(struct gpu_memory *gpu, const struct copy *copy)
{
	void *stream;
	int result = take_stream(gpu, &stream);

	if (result)
		return result;
	result = start_copy(gpu->runtime, copy, stream);
	if (!result)
		result = gpu->runtime->stream_wait(stream);
	keep_stream(gpu, stream);
	return result;
}

static int copy_in_context(struct gpu_memory *gpu, const struct copy *copy)
{
	static const char *const actions[] = {
		[COPY_IN] = "copying to",
		[COPY_OUT] = "copying from",
		[COPY_ZEROS] = "zeroing memory of",
	};
	int result, before, ret = gpu_enter(gpu, &before);

	if (ret)
		return ret;
	result = run_copy(gpu, copy);
	gpu->runtime->leave(before);
	return result ? gpu_fail(gpu->runtime, result, "%s %s", actions[copy->kind], gpu->name) : 0;
}

int gpu_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data, uint64_t length)
{
	return copy_in_context(buffer->gpu, &(struct copy){
		COPY_IN, buffer->address + offset, .from = data, .length = length });
}

int gpu_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length)
{
	return copy_in_context(buffer->gpu, &(struct copy){
		COPY_OUT, buffer->address + offset, .to = data, .length = length });
}

int gpu_zero(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length)
{
	return copy_in_context(buffer->gpu, &(struct copy){
		COPY_ZEROS, buffer->address + offset, .length = length });
}

int gpu_flush(struct fdmabuf_buffer *buffer)
{
	struct gpu_memory *gpu = buffer->gpu;
	int result, before, ret;
	char byte;

	if (gpu->flush == GPU_FLUSH_NONE)
		return 0;
	if (gpu->flush == GPU_FLUSH_COPY)
		return gpu_read(buffer, 0, &byte, 1);
	ret = gpu_enter(gpu, &before);
	if (ret)
		return ret;
	result = gpu->runtime->flush(gpu->own.device);
	gpu->runtime->leave(before);
	return result ? gpu_fail(gpu->runtime, result, "making DMA visible to %s", gpu->name) : 0;
}
