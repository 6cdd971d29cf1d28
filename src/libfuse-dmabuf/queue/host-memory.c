/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Allocates, registers and pins bounce memory. */
#include <sys/mman.h>

#include "base/error.h"
#include "queue/host-memory.h"

static size_t size_of(const struct fdmabuf_queue *queue)
{
	return (size_t)queue->host_depth * queue->host_chunk;
}

int host_memory_need(struct fdmabuf_queue *queue, struct fdmabuf_buffer *buffer)
{
	size_t size = size_of(queue);
	void *memory;

	if (queue->host)
		return 0;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return fail(ENOMEM, "%zu KiB of bounce memory: out of memory", size >> 10);
	/* A child that wrote to the memory would have the device's bytes end up in its copy. */
	madvise(memory, size, MADV_DONTFORK);
	queue->host = memory;
	/*
	 * An error is ignored: the memory may be above RLIMIT_MEMLOCK, and requests work without.
	 */
	ring_register_host(queue->ring, queue->host, size);
	queue->host_pin = buffer_pin_host(buffer, queue->host, size);
	return 0;
}

void host_memory_free(struct fdmabuf_queue *queue)
{
	buffer_unpin_host(queue->host_pin);
	if (queue->host)
		munmap(queue->host, size_of(queue));
}
