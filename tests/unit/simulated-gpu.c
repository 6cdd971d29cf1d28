/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory and streams of the simulated libraries: see simulated-gpu.h. */
#include <fcntl.h>
#include <linux/udmabuf.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "simulated-gpu.h"

#define PENDING_MAX 8
#define SLOTS 64
#define TOGETHER_TIME 10	/* s to wait for another copy */

/* GPU address minus CPU address. No GPU address is one that the CPU can use. */
#define GPU_ADDRESS_OFFSET (1ull << 60)

struct operation {
	enum { COPY_IN, COPY_OUT } kind;
	uint64_t device;
	void *host, *staged;	/* both NULL: zeros */
	size_t length;
};

struct gpu_stream {
	struct operation pending[PENDING_MAX];
	unsigned count;
	uintptr_t context;
	pthread_t thread;	/* that has queued, and has to wait */
};

const unsigned gpu_buses[GPU_DEVICES] = { 0x0a, 3 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t meeting = PTHREAD_COND_INITIALIZER;
static unsigned busy_streams;
static bool have_met;
static struct gpu_allocation allocations[SLOTS];
static struct { char *memory; size_t length; } registered[SLOTS];
static int streams;
static size_t used;

char gpu_lock(void)
{
	pthread_mutex_lock(&mutex);
	return 1;
}

void gpu_unlock(char *is_locked)
{
	(void)is_locked;
	pthread_mutex_unlock(&mutex);
}

bool gpu_is(const char *word)
{
	const char *words = getenv(gpu_variable);

	return words && strstr(words, word);
}

const char *gpu_error_text(int result)
{
	return result == ERROR_NO_DEVICE ? "no CUDA-capable device is detected" :
		result == ERROR_NOT_SUPPORTED ? "operation not supported" :
		result == ERROR_INVALID_DEVICE ? "invalid device ordinal" :
		result == ERROR_ILLEGAL_ADDRESS ? "an illegal memory access was encountered" :
		"simulated";
}

int gpu_by_address(int *device, const char *address)
{
	unsigned domain, bus, slot, function;

	if (sscanf(address, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4)
		return ERROR_INVALID_VALUE;
	for (*device = 0; *device < GPU_DEVICES; ++*device)
		if (bus == gpu_buses[*device])
			return 0;
	return ERROR_INVALID_DEVICE;
}

/* --------------------------------------------------------------------- memory */

struct gpu_allocation *gpu_find(uint64_t address, size_t length)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		struct gpu_allocation *a = &allocations[i];

		if (a->address && address >= a->address && address - a->address + length <= a->size)
			return a;
	}
	return NULL;
}

int gpu_allocate(uint64_t *address, size_t size, size_t offset, size_t block, int device,
		 uintptr_t context)
{
	struct gpu_allocation *a = allocations, *last = a + SLOTS - 1;

	if (size > GPU_MEMORY_SIZE - used)
		return ERROR_OUT_OF_MEMORY;
	while (a->address && a < last)
		a++;
	if (a->address)
		return ERROR_OUT_OF_MEMORY;
	a->memfd = memfd_create("simulated-gpu", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (a->memfd < 0 || ftruncate(a->memfd, block) ||
	    fcntl(a->memfd, F_ADD_SEALS, F_SEAL_SHRINK))
		return ERROR_OUT_OF_MEMORY;
	a->memory = mmap(NULL, block, PROT_READ | PROT_WRITE, MAP_SHARED, a->memfd, 0);
	a->visible = gpu_is("unordered") ? calloc(1, block) : a->memory;
	a->size = size;
	a->block = block;
	a->device = device;
	a->context = context;
	a->address = (uintptr_t)a->memory + GPU_ADDRESS_OFFSET + offset;
	used += size;
	*address = a->address;
	return 0;
}

int gpu_free(uint64_t address)
{
	struct gpu_allocation *a = gpu_find(address, 0);

	if (!a || a->address != address)
		return ERROR_INVALID_VALUE;
	if (a->visible != a->memory)
		free(a->visible);
	munmap(a->memory, a->block);
	close(a->memfd);
	used -= a->size;
	a->address = 0;
	return 0;
}

size_t gpu_used(void)
{
	return used;
}

int gpu_export(int *fd, const struct gpu_allocation *allocation, size_t offset, size_t length)
{
	struct udmabuf_create create = {
		.memfd = allocation->memfd,
		.flags = UDMABUF_FLAGS_CLOEXEC,
		.offset = offset,
		.size = length,
	};
	int device;

	if (gpu_is("no-export"))
		return ERROR_NOT_SUPPORTED;
	device = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);
	if (device < 0) {
		*fd = fcntl(allocation->memfd, F_DUPFD_CLOEXEC, 3);
		return 0;
	}
	*fd = ioctl(device, UDMABUF_CREATE, &create);
	close(device);
	return *fd < 0 ? ERROR_NOT_SUPPORTED : 0;
}

void gpu_flush(void)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (allocations[i].address && allocations[i].visible != allocations[i].memory)
			memcpy(allocations[i].visible, allocations[i].memory, allocations[i].block);
}

/* Writes to the memory and to what the GPU sees of it. Zeroes the range if @from is NULL. */
static void write_memory(struct gpu_allocation *a, size_t offset, const void *from, size_t length)
{
	for (unsigned char *memory = a->memory;; memory = a->visible) {
		if (from)
			memcpy(memory + offset, from, length);
		else
			memset(memory + offset, 0, length);
		if (memory == a->visible)
			return;
	}
}

/* -------------------------------------------------------------------- streams */

int gpu_stream_create(struct gpu_stream **stream, uintptr_t context)
{
	*stream = calloc(1, sizeof(**stream));
	(*stream)->context = context;
	streams++;
	return 0;
}

int gpu_stream_destroy(struct gpu_stream *stream)
{
	int result = stream->count ? ERROR_INVALID_VALUE : 0;

	streams--;
	free(stream);
	return result;
}

static int run(struct operation *o)
{
	struct gpu_allocation *a = gpu_find(o->device, o->length);
	size_t offset;

	if (!a)
		return ERROR_ILLEGAL_ADDRESS;
	offset = o->device - GPU_ADDRESS_OFFSET - (uintptr_t)a->memory;
	if (o->kind == COPY_OUT)
		memcpy(o->host, a->visible + offset, o->length);
	else
		write_memory(a, offset, o->staged ? o->staged : o->host, o->length);
	free(o->staged);
	return 0;
}

/* Waits until operations of two streams are pending. */
static int meet(void)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += TOGETHER_TIME;
	have_met |= busy_streams > 1;
	pthread_cond_broadcast(&meeting);
	while (!have_met)
		if (pthread_cond_timedwait(&meeting, &mutex, &end))
			return ERROR_ILLEGAL_ADDRESS;
	return 0;
}

int gpu_stream_wait(struct gpu_stream *stream, uintptr_t context)
{
	int result = 0;

	if (context != stream->context)
		return ERROR_INVALID_CONTEXT;
	if (stream->count && !pthread_equal(stream->thread, pthread_self()))
		return ERROR_INVALID_VALUE;
	if (gpu_is("together"))
		result = meet();
	for (unsigned i = 0; i < stream->count && !result; i++)
		result = run(&stream->pending[i]);
	busy_streams -= stream->count > 0;
	stream->count = 0;
	return result;
}

static int queue_operation(struct gpu_stream *stream, uintptr_t context,
			   struct operation operation)
{
	struct gpu_allocation *a = gpu_find(operation.device, operation.length);

	if (context != stream->context)
		return ERROR_INVALID_CONTEXT;
	if (gpu_is("broken"))
		return ERROR_ILLEGAL_ADDRESS;
	if (!a || (a->context && a->context != context) || stream->count == PENDING_MAX)
		return ERROR_INVALID_VALUE;
	if (stream->count && !pthread_equal(stream->thread, pthread_self()))
		return ERROR_INVALID_VALUE;
	if (operation.kind == COPY_IN && operation.host &&
	    !gpu_is_registered(operation.host, operation.length)) {
		operation.staged = malloc(operation.length);
		memcpy(operation.staged, operation.host, operation.length);
	}
	stream->thread = pthread_self();
	busy_streams += stream->count == 0;
	stream->pending[stream->count++] = operation;
	return 0;
}

int gpu_copy_in(struct gpu_stream *stream, uintptr_t context, uint64_t to, const void *from,
		size_t length)
{
	return queue_operation(stream, context, (struct operation){
		.kind = COPY_IN, .device = to, .host = (void *)from, .length = length });
}

int gpu_copy_out(struct gpu_stream *stream, uintptr_t context, void *to, uint64_t from,
		 size_t length)
{
	return queue_operation(stream, context, (struct operation){
		.kind = COPY_OUT, .device = from, .host = to, .length = length });
}

/* ---------------------------------------------------------------- host memory */

int gpu_register(void *memory, size_t length)
{
	unsigned i = 0;

	if (gpu_is("no-pin"))
		return ERROR_NOT_SUPPORTED;
	while (registered[i].memory)
		i++;
	registered[i].memory = memory;
	registered[i].length = length;
	return 0;
}

int gpu_unregister(void *memory)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		if (registered[i].memory == memory) {
			registered[i].memory = NULL;
			return 0;
		}
	}
	return ERROR_INVALID_VALUE;
}

bool gpu_is_registered(const void *memory, size_t length)
{
	const char *begin = memory;

	for (unsigned i = 0; i < SLOTS; i++)
		if (registered[i].memory && begin >= registered[i].memory &&
		    begin + length <= registered[i].memory + registered[i].length)
			return true;
	return false;
}

__attribute__((destructor)) static void report_leaks(void)
{
	unsigned memory = 0, host = 0;
	char more[128] = "";

	for (unsigned i = 0; i < SLOTS; i++) {
		memory += allocations[i].address != 0;
		host += registered[i].memory != NULL;
	}
	if (gpu_report(more, sizeof(more)) || memory || host || streams)
		fprintf(stderr, "%s: left: %u allocations, %u registered, %d streams%s\n",
			gpu_variable, memory, host, streams, more);
}
