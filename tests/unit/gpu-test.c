/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory of simulated GPUs. What a direct read has brought is seen after buffer_flush(), by
 * whichever means the driver has; devices have names; threads copy to one buffer at the same time.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "buffer/exporter.h"
#include "check.h"

#define SIZE 4096u
#define THREADS 24u
#define ROUNDS 30u

static char seen(struct fdmabuf_buffer *buffer)
{
	char byte = 0;

	CHECK_EQUAL(fdmabuf_buffer_read(buffer, 0, &byte, 1), 0);
	return byte;
}

/* Writes to the dma-buf as a device would. */
static void write_by_dma(struct fdmabuf_buffer *buffer, char byte)
{
	char *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, buffer->dmabuf_fd, 0);

	CHECK(map != MAP_FAILED);
	*map = byte;
	munmap(map, SIZE);
}

static void test_flush(const char *exporter, const char *words)
{
	struct fdmabuf_buffer *buffer;

	setenv("SIMULATED_CUDA", words, 1);
	setenv("SIMULATED_HIP", words, 1);
	CHECK_EQUAL(fdmabuf_buffer_allocate(exporter, SIZE, &buffer), 0);
	CHECK(buffer->dmabuf_fd >= 0);
	CHECK_EQUAL(fdmabuf_buffer_zero(buffer, 0, SIZE), 0);
	write_by_dma(buffer, 'x');
	CHECK_EQUAL(seen(buffer), strstr(words, "unordered") ? 0 : 'x');
	write_by_dma(buffer, 'y');
	CHECK_EQUAL(buffer_flush(buffer), 0);
	CHECK_EQUAL(seen(buffer), 'y');
	fdmabuf_buffer_free(buffer);
}

/* The name of a device tells it from others of the same kind. */
static void test_names(const char *exporter, const char *first, const char *second)
{
	struct fdmabuf_buffer *buffers[2];
	struct fdmabuf_memory memory = { .size = sizeof(memory), .bytes = SIZE, .number = 1 };

	CHECK_EQUAL(fdmabuf_buffer_allocate(exporter, SIZE, &buffers[0]), 0);
	memory.exporter = buffers[0]->exporter->number;
	CHECK_EQUAL(fdmabuf_buffer_create(&memory, &buffers[1]), 0);
	CHECK(!strcmp(buffers[0]->device, first));
	CHECK(!strcmp(buffers[1]->device, second));
	fdmabuf_buffer_free(buffers[0]);
	fdmabuf_buffer_free(buffers[1]);
}

struct copier {
	pthread_t thread;
	struct fdmabuf_buffer *buffer;
	unsigned number;
};

static void *copy(void *data)
{
	struct copier *copier = data;
	char out[SIZE], in[SIZE];

	for (unsigned i = 0; i < ROUNDS; i++) {
		memset(out, copier->number + i, SIZE);
		CHECK_EQUAL(fdmabuf_buffer_write(copier->buffer, copier->number * SIZE, out, SIZE),
			    0);
		CHECK_EQUAL(fdmabuf_buffer_read(copier->buffer, copier->number * SIZE, in, SIZE),
			    0);
		CHECK(!memcmp(in, out, SIZE));
	}
	return NULL;
}

static void test_threads(const char *exporter)
{
	struct copier copiers[THREADS];
	struct fdmabuf_buffer *buffer;

	CHECK_EQUAL(fdmabuf_buffer_allocate(exporter, THREADS * SIZE, &buffer), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		copiers[i] = (struct copier){ .buffer = buffer, .number = i };
		CHECK_EQUAL(pthread_create(&copiers[i].thread, NULL, copy, &copiers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(copiers[i].thread, NULL);
	fdmabuf_buffer_free(buffer);
}

int main(void)
{
	test_flush("cuda", "");
	test_flush("cuda", "unordered");
	test_flush("cuda", "unordered no-flush");
	test_flush("hip", "");
	test_flush("hip", "unordered");
	test_names("cuda", "cuda 0000:0a:00.0 (Simulated GPU 0)",
		   "cuda 0000:03:00.0 (Simulated GPU 1)");
	test_names("hip", "hip 0000:0a:00.0 (Simulated GPU 0)",
		   "hip 0000:03:00.0 (Simulated GPU 1)");
	test_threads("cuda");
	test_threads("hip");
	return 0;
}
