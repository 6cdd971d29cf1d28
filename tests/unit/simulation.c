/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes files and buffers for tests on a simulated kernel. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "base/error.h"
#include "buffer/exporter.h"
#include "check.h"
#include "simulated-ring.h"
#include "simulation.h"

struct fdmabuf_file *file;
struct fdmabuf_buffer *buffer;
char file_name[] = "/tmp/library-test-XXXXXX";
char other_name[] = "/tmp/library-test-XXXXXX.other";
static char link_name[] = "/tmp/library-test-XXXXXX.link";
_Alignas(BLOCK) unsigned char memory[BUFFER_SIZE];
unsigned char expected[BUFFER_SIZE];

static int refuse_map(struct fdmabuf_buffer *tested)
{
	return tested->map ? 0 : fail(EOPNOTSUPP, "the exporter gives the CPU no access");
}

static void release_nothing(struct fdmabuf_buffer *unused)
{
	(void)unused;
}

/* Uses io_*(): host_*() would do cache maintenance on the descriptor, which is no dma-buf. */
static const struct exporter exporter_test = {
	.name = "test",
	.map = refuse_map,
	.release = release_nothing,
	.write = io_write,
	.read = io_read,
	.zero = io_zero,
};

unsigned char content_at(uint64_t offset)
{
	uint64_t word = (offset / 8 + 1) * 0x9e3779b97f4a7c15ull;

	return word >> (offset % 8 * 8);
}

struct fdmabuf_file *open_simulated(const char *name, int flags)
{
	struct fdmabuf_file *opened = NULL;
	struct fd_handle *handle;

	CHECK_EQUAL(fdmabuf_file_open(name, flags, 0600, &opened), 0);
	/* The filesystem of the test has rules of its own for O_DIRECT: the simulation checks. */
	handle = opened->handle;
	if (handle->fd != handle->plain_fd)
		close(handle->fd);
	handle->fd = open(name, (flags & O_ACCMODE) | O_CLOEXEC | MARK_DIRECT);
	CHECK(handle->fd >= 0 && handle->fd < FDS_MAX);
	handle->is_direct = true;
	handle->block_size = opened->block_size = BLOCK;
	return opened;
}

struct fdmabuf_buffer *make_simulated(unsigned char *bytes, uint64_t size, int dmabuf_fd)
{
	struct fdmabuf_buffer *made = calloc(1, sizeof(*made));

	CHECK(made);
	object_init(&made->object);
	made->exporter = &exporter_test;
	made->size = size;
	made->map = bytes;
	made->dmabuf_fd = dmabuf_fd;
	made->numa_node = -1;
	return made;
}

static void remove_several(void);

void remove_given(void)
{
	remove_several();
	fdmabuf_file_close(file);
	fdmabuf_buffer_free(buffer);
	file = NULL;
	buffer = NULL;
	unlink(file_name);
	unlink(other_name);
	unlink(link_name);
}

static void write_block(uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++)
		expected[i] = content_at(i);
	CHECK_EQUAL(pwrite(file->handle->fd, expected + from, to - from, from), to - from);
}

void given_file(const char *map, uint64_t size)
{
	int fd;

	memset(&simulation, 0, sizeof(simulation));
	memset(memory, UNTOUCHED, sizeof(memory));
	memset(expected, 0, sizeof(expected));
	simulation.random = 1;
	simulation.memory = memory;
	simulation.memory_size = BUFFER_SIZE;
	remove_given();
	memset(file_name + strlen(file_name) - 6, 'X', 6);
	fd = mkstemp(file_name);
	CHECK(fd >= 0 && !ftruncate(fd, size));
	close(fd);
	memcpy(other_name, file_name, strlen(file_name));
	memcpy(link_name, file_name, strlen(file_name));
	file = open_simulated(file_name, O_RDWR);
	for (uint64_t i = 0; map[i]; i++)
		if (map[i] != '.' && i * BLOCK < size)
			write_block(i * BLOCK, min_u64((i + 1) * BLOCK, size));
	buffer = make_simulated(memory, BUFFER_SIZE, 0);
	/* Most files have no path by which they could return. */
	free(file->real_path);
	file->real_path = NULL;
}

void given_file_on_mount(const char *map, uint64_t size)
{
	given_file(map, size);
	file->handle->device = OLD_MOUNT_DEVICE;
	file->real_path = strdup(link_name);
	CHECK(file->real_path);
	show_path(file_name);
}

void hide_path(void)
{
	CHECK(!unlink(link_name));
}

void show_path(const char *name)
{
	CHECK(!symlink(name, link_name));
}

void check_arrived(uint64_t from, uint64_t at, uint64_t length, uint64_t margin)
{
	CHECK(!memcmp(memory + at, expected + from, length));
	for (uint64_t i = 0; i + margin < at; i++)
		CHECK_EQUAL(memory[i], UNTOUCHED);
	for (uint64_t i = at + length + margin; i < BUFFER_SIZE; i++)
		CHECK_EQUAL(memory[i], UNTOUCHED);
}

/* ------------------------------------------------- several files and buffers */

struct fdmabuf_file *files[SEVERAL];
struct fdmabuf_buffer *buffers[SEVERAL];
_Alignas(BLOCK) unsigned char memories[SEVERAL][BUFFER_SIZE];
unsigned char models[SEVERAL][MODEL_SIZE];
uint64_t model_sizes[SEVERAL];

static char several_directory[] = "/tmp/library-test-XXXXXX";

/* Names file @number, or its link, which stands for a mount that has returned. */
static const char *name_of(unsigned number, const char *kind)
{
	static char name[sizeof(several_directory) + 32];

	snprintf(name, sizeof(name), "%s/%s%u", several_directory, kind, number);
	return name;
}

static void remove_several(void)
{
	for (unsigned i = 0; i < SEVERAL; i++) {
		if (!files[i])
			continue;
		fdmabuf_file_close(files[i]);
		fdmabuf_buffer_free(buffers[i]);
		files[i] = NULL;
		buffers[i] = NULL;
		unlink(name_of(i, "file"));
		unlink(name_of(i, "link"));
	}
	rmdir(several_directory);
}

void clear_memories(void)
{
	memset(memories, UNTOUCHED, sizeof(memories));
}

void restore_mounts(void)
{
	simulate_return();
	for (unsigned i = 0; i < SEVERAL; i++)
		files[i]->handle->device = OLD_MOUNT_DEVICE;
}

static void write_model(unsigned number, uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++)
		models[number][i] = content_at(i + ((uint64_t)number << 20));
	CHECK_EQUAL(pwrite(files[number]->handle->fd, models[number] + from, to - from, from),
		    to - from);
}

static void make_file(unsigned number, const char *map, uint64_t size)
{
	char target[sizeof(several_directory) + 32];

	snprintf(target, sizeof(target), "%s", name_of(number, "file"));
	files[number] = open_simulated(target, O_RDWR | O_CREAT);
	free(files[number]->real_path);
	files[number]->real_path = strdup(name_of(number, "link"));
	CHECK(files[number]->real_path && !symlink(target, files[number]->real_path));
	CHECK(!ftruncate(files[number]->handle->fd, size));
	model_sizes[number] = size;
	for (uint64_t i = 0; map[i]; i++)
		if (map[i] != '.' && i * BLOCK < size)
			write_model(number, i * BLOCK, min_u64((i + 1) * BLOCK, size));
}

void given_several(const char *map, uint64_t size)
{
	given_file("", 0);
	memset(several_directory + strlen(several_directory) - 6, 'X', 6);
	CHECK(mkdtemp(several_directory));
	memset(models, 0, sizeof(models));
	clear_memories();
	simulation.memory = *memories;
	for (unsigned i = 0; i < SEVERAL; i++) {
		make_file(i, map, size);
		buffers[i] = make_simulated(memories[i], BUFFER_SIZE, i);
	}
	restore_mounts();
}

void check_models(void)
{
	static unsigned char found[MODEL_SIZE];

	for (unsigned i = 0; i < SEVERAL; i++) {
		CHECK_EQUAL(fdmabuf_file_size(files[i]), model_sizes[i]);
		CHECK_EQUAL(fdmabuf_file_pread(files[i], found, sizeof(found), 0), model_sizes[i]);
		CHECK(!memcmp(found, models[i], model_sizes[i]));
	}
}

/* ---------------------------------------------------- queues and transfers */

struct fdmabuf_queue *queue_with(struct fdmabuf_queue_options options)
{
	struct fdmabuf_queue *queue = NULL;

	options.size = sizeof(options);
	CHECK_EQUAL(fdmabuf_queue_open(&options, &queue), 0);
	return queue;
}

struct fdmabuf_queue *given_queue(enum fdmabuf_path path, uint32_t depth, uint32_t tokens)
{
	return queue_with((struct fdmabuf_queue_options){
		.path = path,
		.depth = depth,
		.chunk = CHUNK,
		.tokens = tokens,
		.proof = FDMABUF_PROOF_NEVER,
	});
}

struct fdmabuf_range range_of(unsigned file_number, uint64_t file_offset, unsigned buffer_number,
			      uint64_t buffer_offset, uint64_t length)
{
	return (struct fdmabuf_range){
		files[file_number], file_offset, buffers[buffer_number], buffer_offset, length,
	};
}

void shuffle_ranges(struct fdmabuf_range *ranges, size_t count, unsigned long long *random)
{
	for (size_t i = count; i > 1; i--) {
		size_t other = next_random(random) % i;
		struct fdmabuf_range kept = ranges[i - 1];

		ranges[i - 1] = ranges[other];
		ranges[other] = kept;
	}
}

struct fdmabuf_transfer *start(struct fdmabuf_queue *queue, enum fdmabuf_direction direction,
			       const struct fdmabuf_range *ranges, size_t count, unsigned flags)
{
	const struct fdmabuf_operation operation = {
		.size = sizeof(operation),
		.direction = direction,
		.flags = flags,
		.ranges = ranges,
		.count = count,
	};
	struct fdmabuf_transfer *transfer = NULL;

	CHECK_EQUAL(fdmabuf_submit(queue, &operation, &transfer), 0);
	return transfer;
}

void wait_for(struct fdmabuf_transfer *transfer)
{
	CHECK_EQUAL(fdmabuf_transfer_wait(transfer, -1), 0);
	CHECK_EQUAL(fdmabuf_transfer_state(transfer), FDMABUF_FINISHED);
}

struct fdmabuf_result result_of_range(const struct fdmabuf_transfer *transfer, size_t index)
{
	struct fdmabuf_result result = { .size = sizeof(result) };

	CHECK_EQUAL(fdmabuf_transfer_result(transfer, index, &result), 0);
	return result;
}

struct fdmabuf_counters counters_of_queue(const struct fdmabuf_queue *queue)
{
	struct fdmabuf_counters counters = { .size = sizeof(counters) };

	CHECK_EQUAL(fdmabuf_queue_counters(queue, &counters), 0);
	return counters;
}
