/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests fdmabuf_channel_read() on a simulated kernel: the bytes that arrive, the bytes that must
 * not change, the counters, and the errors.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "check.h"
#include "internal.h"
#include "simulated-ring.h"

#define BLOCK 4096u
#define CHUNK (4 * BLOCK)
#define BUFFER_SIZE (64 * BLOCK)
#define UNTOUCHED 0xee	/* content of the buffer before a read */

static struct fdmabuf_file file;
static struct fdmabuf_buffer buffer;
static char file_name[] = "/tmp/read-test-XXXXXX";
static char moved_name[] = "/tmp/read-test-XXXXXX.moved";
_Alignas(BLOCK) static unsigned char memory[BUFFER_SIZE];
static unsigned char expected[BUFFER_SIZE];

static int refuse_map(struct fdmabuf_buffer *unused)
{
	(void)unused;
	return fail(EOPNOTSUPP, "the exporter gives the CPU no access");
}

/* Uses io_*(): host_*() would do cache maintenance on the descriptor, which is no dma-buf. */
static const struct exporter exporter_test = {
	.name = "test",
	.map = refuse_map,
	.write = io_write,
	.read = io_read,
	.zero = io_zero,
};

/* Returns the byte that a file has at @offset. */
static unsigned char content_at(uint64_t offset)
{
	uint64_t word = (offset / 8 + 1) * 0x9e3779b97f4a7c15ull;

	return word >> (offset % 8 * 8);
}

static void write_content(uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++) {
		unsigned char byte = content_at(i);

		CHECK_EQUAL(pwrite(file.fd, &byte, 1, i), 1);
	}
}

static void remove_file(void)
{
	if (file.fd <= 0)
		return;
	close_fd(&file.fd);
	close_fd(&file.plain_fd);
	free(file.path);
	free(file.real_path);
	unlink(file_name);
	unlink(moved_name);
}

/*
 * Makes a new file of @size bytes and a new buffer. Each character of @map stands for a block: '.'
 * is a hole, any other character is data.
 */
static void given_file(const char *map, uint64_t size)
{
	struct stat status;

	memset(&simulation, 0, sizeof(simulation));
	memset(&buffer, 0, sizeof(buffer));
	memset(memory, UNTOUCHED, sizeof(memory));
	memset(expected, 0, sizeof(expected));
	remove_file();
	file = (struct fdmabuf_file){
		.plain_fd = -1,
		.is_direct = true,
		.is_fuse = true,
		.block_size = BLOCK,
	};
	memset(file_name + strlen(file_name) - 6, 'X', 6);
	file.fd = mkstemp(file_name);
	CHECK(file.fd >= 0 && !fstat(file.fd, &status));
	memcpy(moved_name, file_name, strlen(file_name));
	file.device = status.st_dev;
	file.inode = status.st_ino;
	file.path = strdup(file_name);
	CHECK(file.path && !ftruncate(file.fd, size));
	for (uint64_t i = 0; map[i]; i++) {
		uint64_t from = i * BLOCK, to = min_u64(from + BLOCK, size);

		if (map[i] == '.' || from >= to)
			continue;
		write_content(from, to);
		for (uint64_t at = from; at < to; at++)
			expected[at] = content_at(at);
	}
	simulation.random = 1;
	simulation.memory = memory;
	buffer = (struct fdmabuf_buffer){
		.exporter = &exporter_test,
		.size = BUFFER_SIZE,
		.map = memory,
	};
}

static struct fdmabuf_channel *given_channel(enum fdmabuf_path path)
{
	struct fdmabuf_channel_options options = { .path = path, .depth = 3, .chunk = CHUNK };
	struct fdmabuf_channel *channel = NULL;

	CHECK_EQUAL(fdmabuf_channel_open(&file, &buffer, &options, &channel), 0);
	return channel;
}

static struct fdmabuf_counters counters_of(const struct fdmabuf_channel *channel)
{
	struct fdmabuf_counters counters;

	fdmabuf_channel_counters(channel, &counters);
	return counters;
}

/* Checks that the range has arrived, and that at most @margin bytes on each side have changed. */
static void check_arrived(uint64_t from, uint64_t at, uint64_t length, uint64_t margin)
{
	CHECK(!memcmp(memory + at, expected + from, length));
	for (uint64_t i = 0; i + margin < at; i++)
		CHECK_EQUAL(memory[i], UNTOUCHED);
	for (uint64_t i = at + length + margin; i < BUFFER_SIZE; i++)
		CHECK_EQUAL(memory[i], UNTOUCHED);
}

static void whole_file_comes_direct(void)
{
	struct fdmabuf_channel *channel;

	given_file("############", 12 * BLOCK);
	channel = given_channel(FDMABUF_DIRECT);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 12 * BLOCK, 0), 12 * BLOCK);
	check_arrived(0, 0, 12 * BLOCK, 0);
	CHECK_EQUAL(counters_of(channel).bytes_direct, 12 * BLOCK);
	CHECK_EQUAL(counters_of(channel).bytes_copied, 0);
	CHECK_EQUAL(counters_of(channel).requests, 3);
	CHECK_EQUAL(counters_of(channel).tokens, 1);
	CHECK_EQUAL(fdmabuf_channel_path(channel), FDMABUF_DIRECT);
	CHECK_EQUAL(*fdmabuf_channel_reason_text(channel), 0);
	fdmabuf_channel_close(channel);
}

static void file_that_ends_in_a_block_comes_direct(void)
{
	struct fdmabuf_channel *channel;

	given_file("######", 5 * BLOCK + 100);
	channel = given_channel(FDMABUF_DIRECT);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 9 * BLOCK, FDMABUF_WHOLE_BLOCKS),
		    5 * BLOCK + 100);
	check_arrived(0, 0, 5 * BLOCK + 100, BLOCK);
	CHECK_EQUAL(counters_of(channel).bytes_copied, 0);
	fdmabuf_channel_close(channel);
}

static void partial_blocks_are_copied_and_nothing_else_changes(void)
{
	struct fdmabuf_channel *channel;

	given_file("######", 5 * BLOCK + 100);
	channel = given_channel(FDMABUF_AUTO);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 10, BLOCK + 10, 6 * BLOCK, 0), 5 * BLOCK + 90);
	check_arrived(10, BLOCK + 10, 5 * BLOCK + 90, 0);
	CHECK_EQUAL(counters_of(channel).bytes_copied, BLOCK - 10 + 100);
	CHECK_EQUAL(counters_of(channel).bytes_direct, 4 * BLOCK);
	fdmabuf_channel_close(channel);
}

static void forbidden_copy_is_an_error(void)
{
	struct fdmabuf_channel *channel;

	given_file("######", 6 * BLOCK);
	channel = given_channel(FDMABUF_DIRECT);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 10, 10, BLOCK, 0), -EINVAL);
	CHECK(strstr(fdmabuf_error(), "partial blocks"));
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 10, BLOCK, 0), -EINVAL);
	CHECK(strstr(fdmabuf_error(), "modulo the block size"));
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, BLOCK, 0), BLOCK);
	fdmabuf_channel_close(channel);
}

static void last_block_is_copied_where_the_buffer_has_no_room_for_it(void)
{
	struct fdmabuf_channel *channel;

	given_file("######", 5 * BLOCK + 100);
	buffer.size = 5 * BLOCK + 100;
	channel = given_channel(FDMABUF_AUTO);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 6 * BLOCK, FDMABUF_WHOLE_BLOCKS),
		    5 * BLOCK + 100);
	check_arrived(0, 0, 5 * BLOCK + 100, 0);
	CHECK_EQUAL(counters_of(channel).bytes_copied, 100);
	fdmabuf_channel_close(channel);
}

static void holes_become_zeros(void)
{
	struct fdmabuf_channel *channel;

	given_file("..#..###.......#..", 17 * BLOCK + 5);
	channel = given_channel(FDMABUF_DIRECT);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, BUFFER_SIZE, FDMABUF_WHOLE_BLOCKS),
		    17 * BLOCK + 5);
	check_arrived(0, 0, 17 * BLOCK + 5, BLOCK);
	CHECK_EQUAL(counters_of(channel).bytes_copied, 0);
	CHECK_EQUAL(counters_of(channel).bytes_direct, 5 * BLOCK);
	CHECK(counters_of(channel).bytes_zeroed >= 12 * BLOCK + 5);
	fdmabuf_channel_close(channel);
}

/* FUSE does not report the block size of the backing filesystem. */
static void holes_smaller_than_the_assumed_block_become_zeros(void)
{
	struct fdmabuf_channel *channel;

	given_file("#..##.#####..##.#", 16 * BLOCK + 5);
	file.block_size = 4 * BLOCK;
	channel = given_channel(FDMABUF_DIRECT);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, BUFFER_SIZE, FDMABUF_WHOLE_BLOCKS),
		    16 * BLOCK + 5);
	check_arrived(0, 0, 16 * BLOCK + 5, 4 * BLOCK);
	CHECK_EQUAL(counters_of(channel).bytes_copied, 0);
	fdmabuf_channel_close(channel);
}

static void unwritten_extents_that_look_like_data_become_zeros(void)
{
	static const char map[] = "##....#.####.";
	struct fdmabuf_channel *channel;

	given_file("#############", 12 * BLOCK + 5);
	simulation.unwritten = map;
	for (uint64_t i = 0; map[i]; i++) {
		size_t length = map[i + 1] ? BLOCK : 5;

		if (map[i] == '#')
			continue;
		memset(expected + i * BLOCK, 0, BLOCK);
		CHECK_EQUAL(pwrite(file.fd, expected + i * BLOCK, length, i * BLOCK), length);
	}
	channel = given_channel(FDMABUF_DIRECT);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, BUFFER_SIZE, FDMABUF_WHOLE_BLOCKS),
		    12 * BLOCK + 5);
	check_arrived(0, 0, 12 * BLOCK + 5, BLOCK);
	CHECK_EQUAL(counters_of(channel).bytes_copied, 0);
	fdmabuf_channel_close(channel);
}

static void empty_file_and_end_of_file_give_nothing(void)
{
	struct fdmabuf_channel *channel;

	given_file("", 0);
	channel = given_channel(FDMABUF_AUTO);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 100, 0), 0);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 1ull << 40, 0, 100, 0), 0);
	check_arrived(0, 0, 0, 0);
	fdmabuf_channel_close(channel);
}

static void file_of_one_byte(void)
{
	struct fdmabuf_channel *channel;

	given_file("#", 1);
	channel = given_channel(FDMABUF_DIRECT);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 1, FDMABUF_WHOLE_BLOCKS), 1);
	CHECK_EQUAL(memory[0], content_at(0));
	CHECK_EQUAL(counters_of(channel).bytes_direct, 1);
	fdmabuf_channel_close(channel);
}

static void range_outside_the_buffer_is_refused(void)
{
	struct fdmabuf_channel *channel;

	given_file("####", 4 * BLOCK);
	channel = given_channel(FDMABUF_AUTO);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, BUFFER_SIZE - BLOCK, 2 * BLOCK, 0), -EFAULT);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, UINT64_MAX - BLOCK + 1, 2 * BLOCK, 0),
		    -EFAULT);
	check_arrived(0, 0, 0, 0);
	fdmabuf_channel_close(channel);
}

/* Device number of the mount whose server ends. Files opened by their path have another one. */
#define OLD_MOUNT_DEVICE 1

/*
 * Makes a file on a mount whose server ends when a test says so. The path always leads to the file
 * on the new mount.
 */
static void given_file_on_mount(const char *map, uint64_t size)
{
	given_file(map, size);
	file.device = OLD_MOUNT_DEVICE;
	file.real_path = strdup(file_name);
	CHECK(file.real_path);
}

static void any_range_comes_right_whatever_happens(void)
{
	static const char *const maps[] = {
		"################################",
		"..##..#.######....#####.#.######",
	};
	unsigned long long random = 42;

	for (unsigned round = 0; round < 3000; round++) {
		uint64_t from = next_random(&random) % (32 * BLOCK);
		uint64_t length = next_random(&random) % (32 * BLOCK);
		uint64_t size = 31 * BLOCK + 700;
		uint64_t at = next_random(&random) % 3 ?
			      from % BLOCK + BLOCK * (next_random(&random) % 30) :
			      next_random(&random) % (30 * BLOCK);
		unsigned flags = next_random(&random) % 2 ? FDMABUF_WHOLE_BLOCKS : 0;
		uint64_t arriving = from < size ? min_u64(length, size - from) : 0;
		struct fdmabuf_channel *channel;

		if (round % 1500 == 0)
			given_file_on_mount(maps[round / 1500], size);
		memset(memory, UNTOUCHED, sizeof(memory));
		simulation.short_reads = next_random(&random) % 2;
		simulation.again_percent = next_random(&random) % 2 ? 30 : 0;
		simulation.interrupt_percent = next_random(&random) % 2 ? 30 : 0;
		simulation.registrations = simulation.requests = 0;
		simulation.is_revoked = false;
		simulation.revoke_request = next_random(&random) % 12;
		simulation.revoke_again = next_random(&random) % 2;
		simulation.end_request = next_random(&random) % 12;
		simulation.has_ended = false;
		file.device = OLD_MOUNT_DEVICE;
		/* The library would open the path, which leads to the new mount already. */
		if (file.plain_fd < 0)
			file.plain_fd = open(file_name, O_RDONLY);
		channel = given_channel(next_random(&random) % 4 ? FDMABUF_AUTO : FDMABUF_BOUNCE);
		CHECK_EQUAL(fdmabuf_channel_read(channel, from, at, length, flags), arriving);
		check_arrived(from, at, arriving, flags ? BLOCK : 0);
		CHECK_EQUAL(simulation.in_flight, 0);
		CHECK(simulation.max_in_flight <= 3);
		fdmabuf_channel_close(channel);
	}
}

static void revoked_token_is_registered_again_once(void)
{
	struct fdmabuf_channel *channel;

	given_file("################", 16 * BLOCK);
	channel = given_channel(FDMABUF_DIRECT);
	simulation.revoke_request = 3;
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 16 * BLOCK, 0), 16 * BLOCK);
	check_arrived(0, 0, 16 * BLOCK, 0);
	CHECK_EQUAL(counters_of(channel).tokens, 2);
	CHECK(counters_of(channel).retries > 0);
	fdmabuf_channel_close(channel);
}

static void revoked_for_good_is_an_error_where_bounce_is_forbidden(void)
{
	struct fdmabuf_channel *channel;

	given_file("################", 16 * BLOCK);
	channel = given_channel(FDMABUF_DIRECT);
	simulation.revoke_request = 3;
	simulation.register_error_later = EPERM;
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 16 * BLOCK, 0), -ESTALE);
	CHECK(strstr(fdmabuf_error(), "broker ended the token"));
	CHECK_EQUAL(simulation.in_flight, 0);
	fdmabuf_channel_close(channel);
}

static void new_token_that_is_revoked_at_once_is_an_error(void)
{
	struct fdmabuf_channel *channel;

	given_file("################", 16 * BLOCK);
	channel = given_channel(FDMABUF_DIRECT);
	simulation.revoke_request = 3;
	simulation.register_error_later = ESTALE;
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 16 * BLOCK, 0), -ESTALE);
	CHECK(strstr(fdmabuf_error(), "gave no new one: the new token was revoked at once"));
	fdmabuf_channel_close(channel);
}

static void revoked_for_good_switches_to_bounce(void)
{
	struct fdmabuf_channel *channel;

	given_file("################", 16 * BLOCK);
	channel = given_channel(FDMABUF_AUTO);
	simulation.revoke_request = 3;
	simulation.register_error_later = EPERM;
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 16 * BLOCK, 0), 16 * BLOCK);
	check_arrived(0, 0, 16 * BLOCK, 0);
	CHECK_EQUAL(fdmabuf_channel_path(channel), FDMABUF_BOUNCE);
	CHECK_EQUAL(fdmabuf_channel_reason(channel), FDMABUF_REASON_REVOKED);
	CHECK(strstr(fdmabuf_channel_reason_text(channel), "broker refused"));
	CHECK_EQUAL(counters_of(channel).bytes_direct + counters_of(channel).bytes_copied,
		    16 * BLOCK);
	fdmabuf_channel_close(channel);
}

static void file_that_shrinks_meanwhile_ends_there(void)
{
	for (enum fdmabuf_path path = FDMABUF_DIRECT; path <= FDMABUF_BOUNCE; path++) {
		struct fdmabuf_channel *channel;

		given_file("################################", 32 * BLOCK);
		channel = given_channel(path);
		simulation.shrink_request = 4;
		simulation.shrink_size = 14 * BLOCK + 77;
		CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 32 * BLOCK, 0), 14 * BLOCK + 77);
		check_arrived(0, 0, 14 * BLOCK + 77, BLOCK);
		fdmabuf_channel_close(channel);
	}
}

/* Returns a channel whose FUSE server ends during the first read. */
static struct fdmabuf_channel *given_channel_on_ending_mount(enum fdmabuf_path path,
							    uint32_t mount_wait)
{
	struct fdmabuf_channel_options options = {
		.path = path,
		.depth = 3,
		.chunk = CHUNK,
		.mount_wait = mount_wait,
	};
	struct fdmabuf_channel *channel = NULL;

	given_file_on_mount("################", 16 * BLOCK);
	CHECK_EQUAL(fdmabuf_channel_open(&file, &buffer, &options, &channel), 0);
	simulation.end_request = 3;
	return channel;
}

/* Checks that a read of the whole file succeeds, after one reopen. */
static void check_read_continues(struct fdmabuf_channel *channel)
{
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 16 * BLOCK, 0), 16 * BLOCK);
	check_arrived(0, 0, 16 * BLOCK, 0);
	CHECK_EQUAL(counters_of(channel).reopens, 1);
}

/* Checks that a read fails with @error (a positive errno) and @text, with no request in flight. */
static void check_read_fails(struct fdmabuf_channel *channel, int error, const char *text)
{
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 16 * BLOCK, 0), -error);
	CHECK(strstr(fdmabuf_error(), text));
	CHECK_EQUAL(simulation.in_flight, 0);
	CHECK_EQUAL(counters_of(channel).reopens, 0);
	CHECK(!fdmabuf_channel_is_waiting(channel));
}

static void read_continues_on_the_returned_mount(void)
{
	struct fdmabuf_channel *channel = given_channel_on_ending_mount(FDMABUF_DIRECT, 0);

	check_read_continues(channel);
	CHECK_EQUAL(counters_of(channel).tokens, 2);
	CHECK_EQUAL(counters_of(channel).bytes_direct, 16 * BLOCK);
	CHECK_EQUAL(fdmabuf_channel_path(channel), FDMABUF_DIRECT);
	CHECK_EQUAL(fdmabuf_channel_reason(channel), FDMABUF_REASON_NONE);
	CHECK_EQUAL(*fdmabuf_channel_reason_text(channel), 0);
	fdmabuf_channel_close(channel);
}

static void read_continues_after_a_revocation_and_a_return(void)
{
	struct fdmabuf_channel *channel = given_channel_on_ending_mount(FDMABUF_DIRECT, 0);

	simulation.revoke_request = 1;
	simulation.end_request = 5;
	check_read_continues(channel);
	CHECK_EQUAL(counters_of(channel).tokens, 3);
	fdmabuf_channel_close(channel);
}

static struct fdmabuf_channel *waiting;
static unsigned waited;

static int mount_at_third_call(void *argument, uint64_t done, uint64_t total)
{
	(void)argument;
	CHECK(done <= total);
	if (fdmabuf_channel_is_waiting(waiting) && ++waited == 3)
		CHECK(!rename(moved_name, file_name));
	return 0;
}

static void read_waits_for_a_mount_that_returns_late(void)
{
	waiting = given_channel_on_ending_mount(FDMABUF_DIRECT, 0);
	waited = 0;
	CHECK(!rename(file_name, moved_name));
	fdmabuf_channel_on_progress(waiting, mount_at_third_call, NULL);
	check_read_continues(waiting);
	CHECK_EQUAL(waited, 3);
	CHECK(!fdmabuf_channel_is_waiting(waiting));
	fdmabuf_channel_close(waiting);
}

static void mount_that_never_returns_is_an_error(void)
{
	struct fdmabuf_channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 150);
	time_t begin = time(NULL);

	CHECK(!rename(file_name, moved_name));
	check_read_fails(channel, ENOTCONN, "not returned within 150 ms");
	CHECK(strstr(fdmabuf_error(), "no such file"));
	CHECK(time(NULL) - begin <= 2);
	/* The next read finds the mount. */
	CHECK(!rename(moved_name, file_name));
	check_read_continues(channel);
	fdmabuf_channel_close(channel);
}

static void read_does_not_wait_if_the_caller_forbids_it(void)
{
	struct fdmabuf_channel *channel =
		given_channel_on_ending_mount(FDMABUF_AUTO, FDMABUF_MOUNT_WAIT_NONE);

	check_read_fails(channel, ENOTCONN,
			 "the FUSE server of this mount has ended: mount it again");
	fdmabuf_channel_close(channel);
}

static int stop_waiting(void *channel, uint64_t done, uint64_t total)
{
	CHECK(done <= total);
	return fdmabuf_channel_is_waiting(channel);
}

static void waiting_can_be_cancelled(void)
{
	struct fdmabuf_channel *channel =
		given_channel_on_ending_mount(FDMABUF_AUTO, FDMABUF_MOUNT_WAIT_MAX);

	CHECK(!rename(file_name, moved_name));
	fdmabuf_channel_on_progress(channel, stop_waiting, channel);
	check_read_fails(channel, ECANCELED, "cancelled");
	fdmabuf_channel_close(channel);
}

static void another_file_on_the_returned_mount_is_refused(void)
{
	struct fdmabuf_channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);
	int fd;

	CHECK(!rename(file_name, moved_name));
	fd = open(file_name, O_WRONLY | O_CREAT, 0600);
	CHECK(fd >= 0 && !ftruncate(fd, 16 * BLOCK));
	close(fd);
	check_read_fails(channel, ESTALE, "another file at this path");
	fdmabuf_channel_close(channel);
}

/* Progress functions that change the file between the start of the read and the mount's return. */
static int change_size(void *argument, uint64_t done, uint64_t total)
{
	(void)argument;
	CHECK(done <= total);
	CHECK(!truncate(file_name, 17 * BLOCK));
	return 0;
}

static int change_time(void *argument, uint64_t done, uint64_t total)
{
	static const struct timespec times[] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1 } };

	(void)argument;
	CHECK(done <= total);
	CHECK(!utimensat(AT_FDCWD, file_name, times, 0));
	return 0;
}

static void changed_file_on_the_returned_mount_is_refused(void)
{
	struct fdmabuf_channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);

	fdmabuf_channel_on_progress(channel, change_size, NULL);
	check_read_fails(channel, ESTALE, "the file has changed (69632 bytes, before: 65536)");
	fdmabuf_channel_close(channel);

	channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);
	fdmabuf_channel_on_progress(channel, change_time, NULL);
	check_read_fails(channel, ESTALE, "written to meanwhile");
	fdmabuf_channel_close(channel);
}

static void another_block_size_on_the_returned_mount_is_refused(void)
{
	struct fdmabuf_channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);

	file.block_size = BLOCK / 2;
	check_read_fails(channel, ESTALE, "another block size (4096, before: 2048)");
	fdmabuf_channel_close(channel);
}

static void same_file_without_a_new_mount_is_not_used(void)
{
	struct fdmabuf_channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 1);
	struct stat status;

	simulation.not_fuse = true;	/* as a file below the mountpoint is */
	check_read_fails(channel, ENOTCONN, "no new FUSE mount at its path");
	fdmabuf_channel_close(channel);

	channel = given_channel_on_ending_mount(FDMABUF_AUTO, 1);
	CHECK(!stat(file_name, &status));
	file.device = status.st_dev;
	check_read_fails(channel, ENOTCONN, "no new FUSE mount at its path");
	fdmabuf_channel_close(channel);
}

static void file_without_a_path_cannot_return(void)
{
	struct fdmabuf_channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);

	free(file.real_path);
	file.real_path = NULL;
	check_read_fails(channel, ENOTCONN, "has no path");
	fdmabuf_channel_close(channel);
}

static void returned_mount_without_tokens_switches_to_bounce(void)
{
	struct fdmabuf_channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);

	simulation.register_error_later = EACCES;
	check_read_continues(channel);
	CHECK_EQUAL(fdmabuf_channel_path(channel), FDMABUF_BOUNCE);
	CHECK_EQUAL(fdmabuf_channel_reason(channel), FDMABUF_REASON_REFUSED);
	CHECK(strstr(fdmabuf_channel_reason_text(channel),
		     "the mount has returned and gives no token: broker refused"));
	CHECK_EQUAL(counters_of(channel).bytes_direct + counters_of(channel).bytes_copied,
		    16 * BLOCK);
	fdmabuf_channel_close(channel);
}

static void returned_mount_without_tokens_is_an_error_where_bounce_is_forbidden(void)
{
	struct fdmabuf_channel *channel = given_channel_on_ending_mount(FDMABUF_DIRECT, 0);

	simulation.register_error_later = EACCES;
	for (unsigned i = 0; i < 2; i++) {
		CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 16 * BLOCK, 0), -ESTALE);
		CHECK(strstr(fdmabuf_error(),
			     "the mount has returned and gives no token: broker refused"));
	}
	simulation.register_error_later = 0;
	check_read_continues(channel);
	CHECK_EQUAL(fdmabuf_channel_reason(channel), FDMABUF_REASON_NONE);
	fdmabuf_channel_close(channel);
}

static int make_present_mount_old(void *argument, uint64_t done, uint64_t total)
{
	(void)argument;
	CHECK(done <= total);
	file.device = OLD_MOUNT_DEVICE;
	return 0;
}

static void server_that_ends_each_time_is_an_error(void)
{
	struct fdmabuf_channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);

	fdmabuf_channel_on_progress(channel, make_present_mount_old, NULL);
	simulation.end_again = true;
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 16 * BLOCK, 0), -ENOTCONN);
	CHECK(strstr(fdmabuf_error(), "ended 4 times"));
	CHECK_EQUAL(counters_of(channel).reopens, 3);
	fdmabuf_channel_close(channel);
}

static void bounce_continues_on_the_returned_mount(void)
{
	struct fdmabuf_channel *channel = given_channel_on_ending_mount(FDMABUF_BOUNCE, 0);

	check_read_continues(channel);
	CHECK_EQUAL(counters_of(channel).tokens, 0);
	CHECK_EQUAL(fdmabuf_channel_reason(channel), FDMABUF_REASON_ASKED);
	fdmabuf_channel_close(channel);
}

static void read_without_a_ring_continues_on_the_returned_mount(void)
{
	struct fdmabuf_channel *channel;

	given_file_on_mount("################", 16 * BLOCK);
	simulation.no_ring = true;
	channel = given_channel(FDMABUF_AUTO);
	simulate_end(file.fd);
	check_read_continues(channel);
	fdmabuf_channel_close(channel);
}

static void partial_blocks_continue_on_the_returned_mount(void)
{
	struct fdmabuf_channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);

	simulate_end(file.fd);
	simulation.end_request = 0;
	/* The path leads nowhere, as one through a directory of the mount that has ended does. */
	free(file.path);
	file.path = strdup("gone/file");
	CHECK_EQUAL(fdmabuf_channel_read(channel, 10, 10, 15 * BLOCK, 0), 15 * BLOCK);
	check_arrived(10, 10, 15 * BLOCK, 0);
	CHECK_EQUAL(counters_of(channel).reopens, 1);
	CHECK_EQUAL(counters_of(channel).bytes_direct, 14 * BLOCK);
	fdmabuf_channel_close(channel);
}

static void other_channels_of_the_file_use_the_returned_mount(void)
{
	struct fdmabuf_channel *channel = given_channel_on_ending_mount(FDMABUF_DIRECT, 0);
	struct fdmabuf_channel *direct = given_channel(FDMABUF_DIRECT);
	struct fdmabuf_channel *bounce = given_channel(FDMABUF_BOUNCE);

	check_read_continues(channel);
	CHECK_EQUAL(fdmabuf_channel_read(direct, 0, 0, 16 * BLOCK, 0), 16 * BLOCK);
	CHECK_EQUAL(counters_of(direct).tokens, 2);
	CHECK_EQUAL(counters_of(direct).reopens, 0);
	CHECK_EQUAL(fdmabuf_channel_read(bounce, 0, 0, 16 * BLOCK, 0), 16 * BLOCK);
	CHECK_EQUAL(fdmabuf_channel_path(bounce), FDMABUF_BOUNCE);
	fdmabuf_channel_close(bounce);
	fdmabuf_channel_close(direct);
	fdmabuf_channel_close(channel);
}

/* The server itself returns ENOTCONN. */
static void enotconn_of_a_server_that_has_not_ended_is_an_error(void)
{
	struct fdmabuf_channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);

	simulation.end_request = 0;
	simulation.fail_request = 2;
	simulation.fail_error = ENOTCONN;
	check_read_fails(channel, ENOTCONN, "reading at offset");
	fdmabuf_channel_close(channel);
}

static void channel_on_a_dead_mount_is_refused(void)
{
	struct fdmabuf_channel *channel;

	given_file_on_mount("####", 4 * BLOCK);
	simulate_end(file.fd);
	CHECK_EQUAL(fdmabuf_channel_open(&file, &buffer, NULL, &channel), -ENOTCONN);
	CHECK(strstr(fdmabuf_error(), "server of this mount has ended"));
}

static void channel_that_is_direct_again_has_no_reason(void)
{
	struct fdmabuf_channel *channel;

	given_file("################", 16 * BLOCK);
	channel = given_channel(FDMABUF_DIRECT);
	simulation.revoke_request = 3;
	simulation.register_error_later = EPERM;
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 16 * BLOCK, 0), -ESTALE);
	CHECK_EQUAL(fdmabuf_channel_reason(channel), FDMABUF_REASON_REVOKED);
	simulation.register_error_later = 0;
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 16 * BLOCK, 0), 16 * BLOCK);
	CHECK_EQUAL(fdmabuf_channel_reason(channel), FDMABUF_REASON_NONE);
	fdmabuf_channel_close(channel);
}

/* The requests that a failed read leaves incomplete must not be submitted by the next read. */
static void failed_read_leaves_nothing_to_the_next(void)
{
	struct fdmabuf_channel *channel;

	given_file("################", 16 * BLOCK);
	channel = given_channel(FDMABUF_DIRECT);
	simulation.revoke_request = 1;
	simulation.register_error_later = EPERM;
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 16 * BLOCK, 0), -ESTALE);
	simulation.register_error_later = 0;
	memset(memory, UNTOUCHED, sizeof(memory));
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 32 * BLOCK, BLOCK, 0), BLOCK);
	check_arrived(0, 32 * BLOCK, BLOCK, 0);
	fdmabuf_channel_close(channel);
}

static void device_error_ends_the_read(void)
{
	struct fdmabuf_channel *channel;

	given_file("################", 16 * BLOCK);
	channel = given_channel(FDMABUF_AUTO);
	simulation.fail_request = 2;
	simulation.fail_error = EIO;
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 16 * BLOCK, 0), -EIO);
	CHECK(strstr(fdmabuf_error(), "offset"));
	CHECK_EQUAL(simulation.in_flight, 0);
	simulation.fail_error = 0;
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 16 * BLOCK, 0), 16 * BLOCK);
	fdmabuf_channel_close(channel);
}

static void endless_eagain_is_an_error(void)
{
	struct fdmabuf_channel *channel;

	given_file("#", BLOCK);
	channel = given_channel(FDMABUF_AUTO);
	simulation.again_percent = 100;
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, BLOCK, 0), -EAGAIN);
	fdmabuf_channel_close(channel);
}

static int stop_at_third_call(void *argument, uint64_t done, uint64_t total)
{
	CHECK(done <= total);
	return ++*(int *)argument == 3;
}

static void progress_function_cancels(void)
{
	struct fdmabuf_channel *channel;
	int calls = 0;

	given_file("################################", 32 * BLOCK);
	channel = given_channel(FDMABUF_AUTO);
	fdmabuf_channel_on_progress(channel, stop_at_third_call, &calls);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 32 * BLOCK, 0), -ECANCELED);
	CHECK_EQUAL(calls, 3);
	CHECK_EQUAL(simulation.in_flight, 0);
	fdmabuf_channel_close(channel);
}

/* For each reason against direct: the reason of FDMABUF_AUTO, and the error of FDMABUF_DIRECT. */
static void reasons_are_told(void)
{
	static const struct {
		int register_error;
		bool no_tokens, no_ring, no_direct, no_dmabuf, no_fuse;
		enum fdmabuf_reason reason;
		int error;
		const char *text;
	} cases[] = {
		{ .no_tokens = true,
		  .reason = FDMABUF_REASON_KERNEL, .error = EOPNOTSUPP,
		  .text = "kernel has no dma-buf tokens" },
		{ .no_ring = true,
		  .reason = FDMABUF_REASON_NO_RING, .error = EOPNOTSUPP,
		  .text = "io_uring is not available" },
		{ .no_direct = true,
		  .reason = FDMABUF_REASON_NOT_DIRECT, .error = EOPNOTSUPP,
		  .text = "file is not O_DIRECT capable" },
		{ .no_dmabuf = true,
		  .reason = FDMABUF_REASON_NO_DMABUF, .error = EOPNOTSUPP,
		  .text = "ordinary memory" },
		{ .register_error = EOPNOTSUPP,
		  .reason = FDMABUF_REASON_UNSUPPORTED, .error = EOPNOTSUPP,
		  .text = "FUSE server" },
		{ .register_error = EOPNOTSUPP, .no_fuse = true,
		  .reason = FDMABUF_REASON_UNSUPPORTED, .error = EOPNOTSUPP,
		  .text = "the filesystem" },
		{ .register_error = EPERM,
		  .reason = FDMABUF_REASON_REFUSED, .error = EPERM,
		  .text = "broker refused: Operation not permitted" },
		{ .register_error = EPERM, .no_fuse = true,
		  .reason = FDMABUF_REASON_FAILED, .error = EPERM,
		  .text = "registration failed" },
		{ .register_error = EUSERS,
		  .reason = FDMABUF_REASON_FAILED, .error = EUSERS,
		  .text = "user.max_dmabuf_tokens" },
		{ .register_error = ENOMEM,
		  .reason = FDMABUF_REASON_FAILED, .error = ENOMEM,
		  .text = "registration failed" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fdmabuf_channel_options direct = { .path = FDMABUF_DIRECT };
		struct fdmabuf_channel *channel;

		given_file("##", 2 * BLOCK - 9);
		simulation.register_error = cases[i].register_error;
		simulation.no_tokens = cases[i].no_tokens;
		simulation.no_ring = cases[i].no_ring;
		file.is_direct = !cases[i].no_direct;
		file.is_fuse = !cases[i].no_fuse;
		buffer.dmabuf_fd = cases[i].no_dmabuf ? -1 : 0;

		CHECK_EQUAL(fdmabuf_channel_open(&file, &buffer, &direct, &channel),
			    -cases[i].error);
		CHECK(strstr(fdmabuf_error(), cases[i].text));

		channel = given_channel(FDMABUF_AUTO);
		CHECK_EQUAL(fdmabuf_channel_path(channel), FDMABUF_BOUNCE);
		CHECK_EQUAL(fdmabuf_channel_reason(channel), cases[i].reason);
		CHECK(strstr(fdmabuf_channel_reason_text(channel), cases[i].text));
		CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, BUFFER_SIZE, 0), 2 * BLOCK - 9);
		check_arrived(0, 0, 2 * BLOCK - 9, 0);
		CHECK_EQUAL(counters_of(channel).bytes_copied, 2 * BLOCK - 9);
		fdmabuf_channel_close(channel);
	}
}

static void buffer_that_the_cpu_cannot_reach_has_no_bounce(void)
{
	struct fdmabuf_channel *channel;

	given_file("##..", 4 * BLOCK);
	buffer.map = NULL;
	channel = given_channel(FDMABUF_AUTO);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 2 * BLOCK, 0), 2 * BLOCK);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, 4 * BLOCK, 0), -EOPNOTSUPP);
	fdmabuf_channel_close(channel);
	simulation.no_tokens = true;
	CHECK_EQUAL(fdmabuf_channel_open(&file, &buffer, NULL, &channel), -EOPNOTSUPP);
	CHECK(strstr(fdmabuf_error(), "neither path is possible"));
	CHECK(strstr(fdmabuf_error(), "kernel has no dma-buf tokens"));
}

static void bounce_memory_is_bounded(void)
{
	static const struct { uint32_t depth, chunk; } cases[] = {
		{ 1, 4096 }, { 256, 1 << 20 }, { 256, 1 << 30 }, { 3, 12288 },
	};

	given_file("#", BLOCK);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fdmabuf_channel_options options = {
			.path = FDMABUF_BOUNCE,
			.depth = cases[i].depth,
			.chunk = cases[i].chunk,
		};
		struct fdmabuf_channel *channel;

		CHECK_EQUAL(fdmabuf_channel_open(&file, &buffer, &options, &channel), 0);
		CHECK((uint64_t)channel->host_depth * channel->host_chunk <= 16 << 20);
		CHECK(channel->host_depth >= 1 && channel->host_depth <= channel->depth);
		CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, BLOCK, 0), BLOCK);
		fdmabuf_channel_close(channel);
	}
}

static void bad_options_are_refused(void)
{
	static const struct fdmabuf_channel_options cases[] = {
		{ .path = 3 }, { .depth = 257 }, { .chunk = 4095 }, { .chunk = (1u << 30) + 4096 },
		{ .reserved[3] = 1 }, { .mount_wait = FDMABUF_MOUNT_WAIT_MAX + 1 },
	};
	struct fdmabuf_channel *channel;

	given_file("#", BLOCK);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		CHECK_EQUAL(fdmabuf_channel_open(&file, &buffer, &cases[i], &channel), -EINVAL);
	channel = given_channel(FDMABUF_AUTO);
	CHECK_EQUAL(fdmabuf_channel_read(channel, 0, 0, BLOCK, 2), -EINVAL);
	fdmabuf_channel_close(channel);
}

int main(void)
{
	RUN(whole_file_comes_direct);
	RUN(file_that_ends_in_a_block_comes_direct);
	RUN(partial_blocks_are_copied_and_nothing_else_changes);
	RUN(forbidden_copy_is_an_error);
	RUN(last_block_is_copied_where_the_buffer_has_no_room_for_it);
	RUN(holes_become_zeros);
	RUN(holes_smaller_than_the_assumed_block_become_zeros);
	RUN(unwritten_extents_that_look_like_data_become_zeros);
	RUN(empty_file_and_end_of_file_give_nothing);
	RUN(file_of_one_byte);
	RUN(range_outside_the_buffer_is_refused);
	RUN(any_range_comes_right_whatever_happens);
	RUN(revoked_token_is_registered_again_once);
	RUN(revoked_for_good_is_an_error_where_bounce_is_forbidden);
	RUN(new_token_that_is_revoked_at_once_is_an_error);
	RUN(revoked_for_good_switches_to_bounce);
	RUN(file_that_shrinks_meanwhile_ends_there);
	RUN(read_continues_on_the_returned_mount);
	RUN(read_continues_after_a_revocation_and_a_return);
	RUN(read_waits_for_a_mount_that_returns_late);
	RUN(mount_that_never_returns_is_an_error);
	RUN(read_does_not_wait_if_the_caller_forbids_it);
	RUN(waiting_can_be_cancelled);
	RUN(another_file_on_the_returned_mount_is_refused);
	RUN(changed_file_on_the_returned_mount_is_refused);
	RUN(another_block_size_on_the_returned_mount_is_refused);
	RUN(same_file_without_a_new_mount_is_not_used);
	RUN(file_without_a_path_cannot_return);
	RUN(returned_mount_without_tokens_switches_to_bounce);
	RUN(returned_mount_without_tokens_is_an_error_where_bounce_is_forbidden);
	RUN(server_that_ends_each_time_is_an_error);
	RUN(bounce_continues_on_the_returned_mount);
	RUN(read_without_a_ring_continues_on_the_returned_mount);
	RUN(partial_blocks_continue_on_the_returned_mount);
	RUN(other_channels_of_the_file_use_the_returned_mount);
	RUN(enotconn_of_a_server_that_has_not_ended_is_an_error);
	RUN(channel_on_a_dead_mount_is_refused);
	RUN(channel_that_is_direct_again_has_no_reason);
	RUN(failed_read_leaves_nothing_to_the_next);
	RUN(device_error_ends_the_read);
	RUN(endless_eagain_is_an_error);
	RUN(progress_function_cancels);
	RUN(reasons_are_told);
	RUN(buffer_that_the_cpu_cannot_reach_has_no_bounce);
	RUN(bounce_memory_is_bounded);
	RUN(bad_options_are_refused);
	remove_file();
	return 0;
}
