/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every allocation of the library fails once: the functions say so, leak nothing, and do what they
 * are for when they are called again.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"
#include "fuse-dmabuf.h"

#define FILE_SIZE 300000u	/* bytes */
#define BUFFER_SIZE (1u << 20)
#define ALLOCATIONS_MAX 200u

/* Number of the allocation that fails, of those since it was set; 0 = none. */
static unsigned fail_at, count;
static long outstanding;

static bool is_to_fail(void)
{
	return fail_at && ++count == fail_at;
}

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t number, size_t size);
void *__libc_realloc(void *memory, size_t size);
void __libc_free(void *memory);

static void *count_allocation(void *memory)
{
	outstanding += memory != NULL;
	return memory;
}

void *malloc(size_t size)
{
	return is_to_fail() ? NULL : count_allocation(__libc_malloc(size));
}

void *calloc(size_t number, size_t size)
{
	return is_to_fail() ? NULL : count_allocation(__libc_calloc(number, size));
}

void *realloc(void *memory, size_t size)
{
	if (is_to_fail())
		return NULL;
	outstanding -= memory != NULL;
	return count_allocation(__libc_realloc(memory, size));
}

void free(void *memory)
{
	outstanding -= memory != NULL;
	__libc_free(memory);
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	if (flags & MAP_ANONYMOUS && is_to_fail()) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return (void *)syscall(__NR_mmap, address, length, protection, flags, fd, offset);
}

/* ---------------------------------------------------------------------------- */

static unsigned char content[FILE_SIZE], found[FILE_SIZE];
static unsigned failures;	/* errors that were told */

/*
 * Returns true if the call has succeeded, or else checks that the lack of memory was told, and lets
 * all allocations succeed from now on.
 */
static bool succeeded(int64_t ret, const char *text)
{
	unsigned failed = fail_at;

	fail_at = 0;
	if (ret >= 0) {
		fail_at = failed;
		return true;
	}
	CHECK(failed && count >= failed);
	CHECK(ret == -ENOMEM);
	CHECK(strstr(text, "memory"));
	failures++;
	return false;
}

/* Calls again what has failed. */
#define NEEDS(call) do { \
	if (!succeeded(call, fdmabuf_error())) \
		CHECK((call) >= 0); \
} while (0)

static int64_t move(struct fdmabuf_queue *queue, enum fdmabuf_direction direction,
		    const struct fdmabuf_range *ranges, size_t range_count)
{
	struct fdmabuf_operation operation = {
		.size = sizeof(operation),
		.direction = direction,
		.flags = direction == FDMABUF_WRITE ? FDMABUF_SYNC : 0,
		.ranges = ranges,
		.count = range_count,
	};
	struct fdmabuf_transfer *transfer;
	struct fdmabuf_result result = { .size = sizeof(result) };
	int64_t bytes;

	if (!succeeded(fdmabuf_submit(queue, &operation, &transfer), fdmabuf_error()))
		return -ENOMEM;
	CHECK(!fdmabuf_transfer_wait(transfer, -1));
	bytes = fdmabuf_transfer_bytes(transfer);
	for (size_t i = 0; i < range_count; i++)
		CHECK(!fdmabuf_transfer_result(transfer, i, &result));
	if (!succeeded(bytes, fdmabuf_transfer_error(transfer)))
		CHECK(!strcmp(fdmabuf_error(), fdmabuf_transfer_error(transfer)));
	fdmabuf_transfer_free(transfer);
	return bytes;
}

/* Moves the same again if there was no memory the first time. */
static void move_all(struct fdmabuf_queue *queue, enum fdmabuf_direction direction,
		     const struct fdmabuf_range *ranges, size_t range_count)
{
	int64_t bytes = move(queue, direction, ranges, range_count);

	if (bytes < 0)
		bytes = move(queue, direction, ranges, range_count);
	CHECK(bytes == FILE_SIZE);
}

static void use_library(const char *path)
{
	const struct fdmabuf_queue_options options = { .size = sizeof(options), .depth = 3 };
	struct fdmabuf_file *file;
	struct fdmabuf_buffer *buffer;
	struct fdmabuf_queue *queue;
	struct fdmabuf_result result = { .size = sizeof(result) };

	NEEDS(fdmabuf_file_open(path, O_RDWR | O_TRUNC, 0, &file));
	NEEDS(fdmabuf_buffer_allocate("memory", BUFFER_SIZE, &buffer));
	NEEDS(fdmabuf_queue_open(&options, &queue));
	NEEDS(fdmabuf_queue_fd(queue));

	const struct fdmabuf_range ranges[] = {
		{ file, 200000, buffer, 0, 100000 },
		{ file, 0, buffer, 100000, 70001 },
		{ file, 70001, buffer, 300000, 129999 },
	};

	NEEDS(fdmabuf_queue_check(queue, FDMABUF_WRITE, ranges, 0, &result));
	for (size_t i = 0; i < 3; i++)
		NEEDS(fdmabuf_buffer_write(buffer, ranges[i].buffer_offset,
					   content + ranges[i].file_offset, ranges[i].length));
	move_all(queue, FDMABUF_WRITE, ranges, 3);
	NEEDS(fdmabuf_buffer_zero(buffer, 0, BUFFER_SIZE));
	move_all(queue, FDMABUF_READ, ranges, 3);
	for (size_t i = 0; i < 3; i++)
		NEEDS(fdmabuf_buffer_read(buffer, ranges[i].buffer_offset,
					  found + ranges[i].file_offset, ranges[i].length));
	fdmabuf_queue_close(queue);
	fdmabuf_buffer_free(buffer);
	fdmabuf_file_close(file);
	CHECK(!memcmp(content, found, FILE_SIZE));
}

static unsigned count_descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	unsigned descriptors = 0;

	CHECK(directory);
	while (readdir(directory))
		descriptors++;
	closedir(directory);
	return descriptors;
}

int main(void)
{
	char path[] = "allocation-test-XXXXXX";
	int fd = mkstemp(path);
	unsigned descriptors, number = 0;
	bool has_failed = true;

	CHECK(fd >= 0);
	close(fd);
	descriptors = count_descriptors();
	for (size_t i = 0; i < FILE_SIZE; i++)
		content[i] = i * 7 + i / 251;
	use_library(path);	/* what is allocated once for all is there */
	while (has_failed) {
		long before = outstanding;

		CHECK(++number < ALLOCATIONS_MAX);
		count = 0;
		fail_at = number;
		memset(found, 0, sizeof(found));
		use_library(path);
		fail_at = 0;
		has_failed = count >= number;
		CHECK(outstanding == before);
		CHECK(count_descriptors() == descriptors);
	}
	unlink(path);
	printf("%u allocations, of which %u are needed\n", number - 1, failures);
	CHECK(failures >= 10);
	return 0;
}
