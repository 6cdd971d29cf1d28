/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Allocates, registers and pins bounce memory. */
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "queue/host-memory.h"

static size_t size_of(const struct fdmabuf_queue *queue)
{
	return (size_t)queue->host_depth * queue->host_chunk;
}

/* Pins the memory for the devices of the buffer's exporter, unless that was done or tried. */
static void pin(struct fdmabuf_queue *queue, struct fdmabuf_buffer *buffer)
{
	unsigned count = queue->host_pin_count;

	for (unsigned i = 0; i < count; i++)
		if (queue->host_pins[i].exporter == buffer->exporter)
			return;
	if (count == HOST_PINS_MAX)
		return;
	queue->host_pins[count].exporter = buffer->exporter;
	queue->host_pins[count].pin = buffer_pin_host(buffer, queue->host, size_of(queue));
	queue->host_pin_count++;
}

/* Has the pages allocated near to the device that copies to or from them, if it has memory. */
static void place_near(int node, void *memory, size_t size)
{
	const unsigned bits = 8 * sizeof(unsigned long);
	unsigned long nodes;

	if (node < 0 || node >= (int)bits)
		return;
	nodes = 1ul << node;
	/*
	 * An error is ignored: only speed depends on it. The kernel reads one bit less than it is
	 * told.
	 */
	syscall(SYS_mbind, memory, size, MPOL_PREFERRED, &nodes, bits + 1, 0);
}

static int allocate(struct fdmabuf_queue *queue, const struct fdmabuf_buffer *buffer)
{
	size_t size = size_of(queue);
	void *memory;

	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return fail(ENOMEM, "%zu KiB of bounce memory: out of memory", size >> 10);
	/* A child that wrote to the memory would have the device's bytes end up in its copy. */
	madvise(memory, size, MADV_DONTFORK);
	place_near(buffer->numa_node, memory, size);
	queue->host = memory;
	/*
	 * An error is ignored: the memory may be above RLIMIT_MEMLOCK, and requests work without.
	 */
	ring_register_host(queue->ring, queue->host, size);
	return 0;
}

int host_memory_need(struct fdmabuf_queue *queue, struct fdmabuf_buffer *buffer)
{
	int ret = queue->host ? 0 : allocate(queue, buffer);

	if (!ret)
		pin(queue, buffer);
	return ret;
}

void host_memory_free(struct fdmabuf_queue *queue)
{
	for (unsigned i = 0; i < queue->host_pin_count; i++)
		buffer_unpin_host(queue->host_pins[i].pin);
	if (queue->host)
		munmap(queue->host, size_of(queue));
}
