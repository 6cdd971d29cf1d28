/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests reads of one file into one buffer on a simulated kernel: the bytes that arrive, the bytes
 * that must not change, the counters, and the errors.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "base/arithmetic.h"
#include "base/error.h"
#include "queue/queue.h"
#include "simulated-ring.h"
#include "simulation.h"

/* A queue that reads one file into one buffer. */
struct channel {
	struct fdmabuf_queue *queue;
	struct fdmabuf_file *file;
	struct fdmabuf_buffer *buffer;
	int (*progress)(void *argument, uint64_t done, uint64_t total);
	void *argument;
	bool is_waiting;
};

static int tell_progress(void *data, const struct fdmabuf_progress *progress)
{
	struct channel *channel = data;

	channel->is_waiting = progress->state == FDMABUF_WAITING;
	return channel->progress ?
	       channel->progress(channel->argument, progress->done, progress->total) : 0;
}

/* Looks at the first block of file and buffer. */
static int channel_check(struct channel *channel, struct fdmabuf_result *result)
{
	const struct fdmabuf_range range = {
		channel->file, 0, channel->buffer, 0, min_u64(BLOCK, channel->buffer->size),
	};

	result->size = sizeof(*result);
	return fdmabuf_queue_check(channel->queue, FDMABUF_READ, &range, FDMABUF_WHOLE_BLOCKS,
				   result);
}

static void channel_close(struct channel *channel)
{
	fdmabuf_queue_close(channel->queue);
	free(channel);
}

static int channel_open(struct fdmabuf_file *file, struct fdmabuf_buffer *buffer,
			const struct fdmabuf_queue_options *options, struct channel **result)
{
	struct channel *channel = calloc(1, sizeof(*channel));
	struct fdmabuf_result first;
	int ret;

	CHECK(channel);
	channel->file = file;
	channel->buffer = buffer;
	ret = fdmabuf_queue_open(options, &channel->queue);
	if (!ret)
		ret = channel_check(channel, &first);
	if (ret)
		channel_close(channel);
	else
		*result = channel;
	return ret;
}

static enum fdmabuf_path channel_path(struct channel *channel)
{
	struct fdmabuf_result result;

	CHECK_EQUAL(channel_check(channel, &result), 0);
	return result.path;
}

static enum fdmabuf_reason channel_reason(struct channel *channel)
{
	struct fdmabuf_result result;

	CHECK_EQUAL(channel_check(channel, &result), 0);
	return result.reason;
}

static const char *channel_reason_text(struct channel *channel)
{
	static struct fdmabuf_result result;

	CHECK_EQUAL(channel_check(channel, &result), 0);
	return result.text;
}

static int64_t channel_read(struct channel *channel, uint64_t file_offset, uint64_t buffer_offset,
			    uint64_t length, unsigned flags)
{
	const struct fdmabuf_range range = {
		channel->file, file_offset, channel->buffer, buffer_offset, length,
	};
	const struct fdmabuf_operation operation = {
		.size = sizeof(operation),
		.direction = FDMABUF_READ,
		.flags = flags,
		.ranges = &range,
		.count = 1,
		.progress = tell_progress,
		.data = channel,
	};
	int64_t ret = fdmabuf_run(channel->queue, &operation);

	channel->is_waiting = false;
	return ret;
}

static void channel_on_progress(struct channel *channel,
				int (*progress)(void *argument, uint64_t done, uint64_t total),
				void *argument)
{
	channel->progress = progress;
	channel->argument = argument;
}

static bool channel_is_waiting(const struct channel *channel)
{
	return channel->is_waiting;
}

static struct channel *given_channel(enum fdmabuf_path path)
{
	struct fdmabuf_queue_options options = {
		.size = sizeof(options), .path = path, .depth = 3, .chunk = CHUNK,
		.proof = FDMABUF_PROOF_NEVER,
	};
	struct channel *channel = NULL;

	CHECK_EQUAL(channel_open(file, buffer, &options, &channel), 0);
	return channel;
}

static struct fdmabuf_counters counters_of(const struct channel *channel)
{
	struct fdmabuf_counters counters = { .size = sizeof(counters) };

	CHECK_EQUAL(fdmabuf_queue_counters(channel->queue, &counters), 0);
	return counters;
}

static void whole_file_comes_direct(void)
{
	struct channel *channel;

	given_file("############", 12 * BLOCK);
	channel = given_channel(FDMABUF_DIRECT);
	CHECK_EQUAL(channel_read(channel, 0, 0, 12 * BLOCK, 0), 12 * BLOCK);
	check_arrived(0, 0, 12 * BLOCK, 0);
	CHECK_EQUAL(counters_of(channel).bytes_direct, 12 * BLOCK);
	CHECK_EQUAL(counters_of(channel).bytes_copied, 0);
	CHECK_EQUAL(counters_of(channel).requests, 3);
	CHECK_EQUAL(counters_of(channel).tokens, 1);
	CHECK_EQUAL(channel_path(channel), FDMABUF_DIRECT);
	CHECK_EQUAL(*channel_reason_text(channel), 0);
	channel_close(channel);
}

static void file_that_ends_in_a_block_comes_direct(void)
{
	struct channel *channel;

	given_file("######", 5 * BLOCK + 100);
	channel = given_channel(FDMABUF_DIRECT);
	CHECK_EQUAL(channel_read(channel, 0, 0, 9 * BLOCK, FDMABUF_WHOLE_BLOCKS),
		    5 * BLOCK + 100);
	check_arrived(0, 0, 5 * BLOCK + 100, BLOCK);
	CHECK_EQUAL(counters_of(channel).bytes_copied, 0);
	channel_close(channel);
}

static void partial_blocks_are_copied_and_nothing_else_changes(void)
{
	struct channel *channel;

	given_file("######", 5 * BLOCK + 100);
	channel = given_channel(FDMABUF_AUTO);
	CHECK_EQUAL(channel_read(channel, 10, BLOCK + 10, 6 * BLOCK, 0), 5 * BLOCK + 90);
	check_arrived(10, BLOCK + 10, 5 * BLOCK + 90, 0);
	CHECK_EQUAL(counters_of(channel).bytes_copied, BLOCK - 10 + 100);
	CHECK_EQUAL(counters_of(channel).bytes_direct, 4 * BLOCK);
	channel_close(channel);
}

static void forbidden_copy_is_an_error(void)
{
	struct channel *channel;

	given_file("######", 6 * BLOCK);
	channel = given_channel(FDMABUF_DIRECT);
	CHECK_EQUAL(channel_read(channel, 10, 10, BLOCK, 0), -EINVAL);
	CHECK(strstr(fdmabuf_error(), "partial blocks"));
	CHECK_EQUAL(channel_read(channel, 0, 10, BLOCK, 0), -EINVAL);
	CHECK(strstr(fdmabuf_error(), "modulo the block size"));
	CHECK_EQUAL(channel_read(channel, 0, 0, BLOCK, 0), BLOCK);
	channel_close(channel);
}

static void last_block_is_copied_where_the_buffer_has_no_room_for_it(void)
{
	struct channel *channel;

	given_file("######", 5 * BLOCK + 100);
	buffer->size = 5 * BLOCK + 100;
	channel = given_channel(FDMABUF_AUTO);
	CHECK_EQUAL(channel_read(channel, 0, 0, 6 * BLOCK, FDMABUF_WHOLE_BLOCKS),
		    5 * BLOCK + 100);
	check_arrived(0, 0, 5 * BLOCK + 100, 0);
	CHECK_EQUAL(counters_of(channel).bytes_copied, 100);
	channel_close(channel);
}

static void holes_become_zeros(void)
{
	struct channel *channel;

	given_file("..#..###.......#..", 17 * BLOCK + 5);
	channel = given_channel(FDMABUF_DIRECT);
	CHECK_EQUAL(channel_read(channel, 0, 0, BUFFER_SIZE, FDMABUF_WHOLE_BLOCKS),
		    17 * BLOCK + 5);
	check_arrived(0, 0, 17 * BLOCK + 5, BLOCK);
	CHECK_EQUAL(counters_of(channel).bytes_copied, 0);
	CHECK_EQUAL(counters_of(channel).bytes_direct, 5 * BLOCK);
	CHECK(counters_of(channel).bytes_zeroed >= 12 * BLOCK + 5);
	channel_close(channel);
}

/* FUSE does not report the block size of the backing filesystem. */
static void holes_smaller_than_the_assumed_block_become_zeros(void)
{
	struct channel *channel;

	given_file("#..##.#####..##.#", 16 * BLOCK + 5);
	file->block_size = 4 * BLOCK;
	channel = given_channel(FDMABUF_DIRECT);
	CHECK_EQUAL(channel_read(channel, 0, 0, BUFFER_SIZE, FDMABUF_WHOLE_BLOCKS),
		    16 * BLOCK + 5);
	check_arrived(0, 0, 16 * BLOCK + 5, 4 * BLOCK);
	CHECK_EQUAL(counters_of(channel).bytes_copied, 0);
	channel_close(channel);
}

static void unwritten_extents_that_look_like_data_become_zeros(void)
{
	static const char map[] = "##....#.####.";
	struct channel *channel;

	given_file("#############", 12 * BLOCK + 5);
	simulation.unwritten = map;
	for (uint64_t i = 0; map[i]; i++) {
		size_t length = map[i + 1] ? BLOCK : 5;

		if (map[i] == '#')
			continue;
		memset(expected + i * BLOCK, 0, BLOCK);
		CHECK_EQUAL(pwrite(file->handle->fd, expected + i * BLOCK, length, i * BLOCK),
			    length);
	}
	channel = given_channel(FDMABUF_DIRECT);
	CHECK_EQUAL(channel_read(channel, 0, 0, BUFFER_SIZE, FDMABUF_WHOLE_BLOCKS),
		    12 * BLOCK + 5);
	check_arrived(0, 0, 12 * BLOCK + 5, BLOCK);
	CHECK_EQUAL(counters_of(channel).bytes_copied, 0);
	channel_close(channel);
}

static void empty_file_and_end_of_file_give_nothing(void)
{
	struct channel *channel;

	given_file("", 0);
	channel = given_channel(FDMABUF_AUTO);
	CHECK_EQUAL(channel_read(channel, 0, 0, 100, 0), 0);
	CHECK_EQUAL(channel_read(channel, 1ull << 40, 0, 100, 0), 0);
	check_arrived(0, 0, 0, 0);
	channel_close(channel);
}

static void file_of_one_byte(void)
{
	struct channel *channel;

	given_file("#", 1);
	channel = given_channel(FDMABUF_DIRECT);
	CHECK_EQUAL(channel_read(channel, 0, 0, 1, FDMABUF_WHOLE_BLOCKS), 1);
	CHECK_EQUAL(memory[0], content_at(0));
	CHECK_EQUAL(counters_of(channel).bytes_direct, 1);
	channel_close(channel);
}

static void range_outside_the_buffer_is_refused(void)
{
	struct channel *channel;

	given_file("####", 4 * BLOCK);
	channel = given_channel(FDMABUF_AUTO);
	CHECK_EQUAL(channel_read(channel, 0, BUFFER_SIZE - BLOCK, 2 * BLOCK, 0), -EFAULT);
	CHECK_EQUAL(channel_read(channel, 0, UINT64_MAX - BLOCK + 1, 2 * BLOCK, 0),
		    -EFAULT);
	check_arrived(0, 0, 0, 0);
	channel_close(channel);
}

static unsigned random_rounds = 3000;

static void any_range_comes_right_whatever_happens(void)
{
	static const char *const maps[] = {
		"################################",
		"..##..#.######....#####.#.######",
	};
	unsigned long long random = 42;

	for (unsigned round = 0; round < random_rounds; round++) {
		uint64_t from = next_random(&random) % (32 * BLOCK);
		uint64_t length = next_random(&random) % (32 * BLOCK);
		uint64_t size = 31 * BLOCK + 700;
		uint64_t at = next_random(&random) % 3 ?
			      from % BLOCK + BLOCK * (next_random(&random) % 30) :
			      next_random(&random) % (30 * BLOCK);
		unsigned flags = next_random(&random) % 2 ? FDMABUF_WHOLE_BLOCKS : 0;
		uint64_t arriving = from < size ? min_u64(length, size - from) : 0;
		struct channel *channel;

		if (round % 1500 == 0)
			given_file_on_mount(maps[round / 1500], size);
		memset(memory, UNTOUCHED, sizeof(memory));
		simulation.short_results = next_random(&random) % 2;
		simulation.again_percent = next_random(&random) % 2 ? 30 : 0;
		simulation.interrupt_percent = next_random(&random) % 2 ? 30 : 0;
		simulation.registrations = simulation.requests = 0;
		simulation.revoke_request = next_random(&random) % 12;
		simulation.revoke_again = next_random(&random) % 2;
		simulation.end_request = next_random(&random) % 12;
		simulate_return();
		file->handle->device = OLD_MOUNT_DEVICE;
		/* The library would open the path, which leads to the new mount already. */
		if (file->handle->plain_fd < 0)
			file->handle->plain_fd = open(file_name, O_RDONLY);
		channel = given_channel(next_random(&random) % 4 ? FDMABUF_AUTO : FDMABUF_BOUNCE);
		CHECK_EQUAL(channel_read(channel, from, at, length, flags), arriving);
		check_arrived(from, at, arriving, flags ? BLOCK : 0);
		CHECK_EQUAL(simulation.in_flight, 0);
		CHECK(simulation.max_in_flight <= 3);
		channel_close(channel);
	}
}

static void revoked_token_is_registered_again_once(void)
{
	struct channel *channel;

	given_file("################", 16 * BLOCK);
	channel = given_channel(FDMABUF_DIRECT);
	simulation.revoke_request = 3;
	CHECK_EQUAL(channel_read(channel, 0, 0, 16 * BLOCK, 0), 16 * BLOCK);
	check_arrived(0, 0, 16 * BLOCK, 0);
	CHECK_EQUAL(counters_of(channel).tokens, 2);
	CHECK(counters_of(channel).retries > 0);
	channel_close(channel);
}

static void revoked_for_good_is_an_error_where_bounce_is_forbidden(void)
{
	struct channel *channel;

	given_file("################", 16 * BLOCK);
	channel = given_channel(FDMABUF_DIRECT);
	simulation.revoke_request = 3;
	simulation.register_error_later = EPERM;
	CHECK_EQUAL(channel_read(channel, 0, 0, 16 * BLOCK, 0), -ESTALE);
	CHECK(strstr(fdmabuf_error(), "broker ended the token"));
	CHECK_EQUAL(simulation.in_flight, 0);
	channel_close(channel);
}

static void new_token_that_is_revoked_at_once_is_an_error(void)
{
	struct channel *channel;

	given_file("################", 16 * BLOCK);
	channel = given_channel(FDMABUF_DIRECT);
	simulation.revoke_request = 3;
	simulation.register_error_later = ESTALE;
	CHECK_EQUAL(channel_read(channel, 0, 0, 16 * BLOCK, 0), -ESTALE);
	CHECK(strstr(fdmabuf_error(), "gave no new one: the new token was revoked at once"));
	channel_close(channel);
}

static void revoked_for_good_switches_to_bounce(void)
{
	struct channel *channel;

	given_file("################", 16 * BLOCK);
	channel = given_channel(FDMABUF_AUTO);
	simulation.revoke_request = 3;
	simulation.register_error_later = EPERM;
	CHECK_EQUAL(channel_read(channel, 0, 0, 16 * BLOCK, 0), 16 * BLOCK);
	check_arrived(0, 0, 16 * BLOCK, 0);
	CHECK_EQUAL(channel_path(channel), FDMABUF_BOUNCE);
	CHECK_EQUAL(channel_reason(channel), FDMABUF_REASON_REVOKED);
	CHECK(strstr(channel_reason_text(channel), "broker refused"));
	CHECK_EQUAL(counters_of(channel).bytes_direct + counters_of(channel).bytes_copied,
		    16 * BLOCK);
	channel_close(channel);
}

static void file_that_shrinks_meanwhile_ends_there(void)
{
	for (enum fdmabuf_path path = FDMABUF_DIRECT; path <= FDMABUF_BOUNCE; path++) {
		struct channel *channel;

		given_file("################################", 32 * BLOCK);
		channel = given_channel(path);
		simulation.shrink_request = 4;
		simulation.shrink_size = 14 * BLOCK + 77;
		CHECK_EQUAL(channel_read(channel, 0, 0, 32 * BLOCK, 0), 14 * BLOCK + 77);
		check_arrived(0, 0, 14 * BLOCK + 77, BLOCK);
		channel_close(channel);
	}
}

/* Returns a channel whose FUSE server ends during the first read. */
static struct channel *given_channel_on_ending_mount(enum fdmabuf_path path,
							    uint32_t mount_wait)
{
	struct fdmabuf_queue_options options = {
		.size = sizeof(options),
		.path = path,
		.depth = 3,
		.chunk = CHUNK,
		.mount_wait = mount_wait,
		.proof = FDMABUF_PROOF_NEVER,
	};
	struct channel *channel = NULL;

	given_file_on_mount("################", 16 * BLOCK);
	CHECK_EQUAL(channel_open(file, buffer, &options, &channel), 0);
	simulation.end_request = 3;
	return channel;
}

/* Checks that a read of the whole file succeeds, after one reopen. */
static void check_read_continues(struct channel *channel)
{
	CHECK_EQUAL(channel_read(channel, 0, 0, 16 * BLOCK, 0), 16 * BLOCK);
	check_arrived(0, 0, 16 * BLOCK, 0);
	CHECK_EQUAL(counters_of(channel).reopens, 1);
}

/* Checks that a read fails with @error (a positive errno) and @text, with no request in flight. */
static void check_read_fails(struct channel *channel, int error, const char *text)
{
	CHECK_EQUAL(channel_read(channel, 0, 0, 16 * BLOCK, 0), -error);
	CHECK(strstr(fdmabuf_error(), text));
	CHECK_EQUAL(simulation.in_flight, 0);
	CHECK_EQUAL(counters_of(channel).reopens, 0);
	CHECK(!channel_is_waiting(channel));
}

static void read_continues_on_the_returned_mount(void)
{
	struct channel *channel = given_channel_on_ending_mount(FDMABUF_DIRECT, 0);

	check_read_continues(channel);
	CHECK_EQUAL(counters_of(channel).tokens, 2);
	CHECK_EQUAL(counters_of(channel).bytes_direct, 16 * BLOCK);
	CHECK_EQUAL(channel_path(channel), FDMABUF_DIRECT);
	CHECK_EQUAL(channel_reason(channel), FDMABUF_REASON_NONE);
	CHECK_EQUAL(*channel_reason_text(channel), 0);
	channel_close(channel);
}

static void read_continues_after_a_revocation_and_a_return(void)
{
	struct channel *channel = given_channel_on_ending_mount(FDMABUF_DIRECT, 0);

	simulation.revoke_request = 1;
	simulation.end_request = 5;
	check_read_continues(channel);
	CHECK_EQUAL(counters_of(channel).tokens, 3);
	channel_close(channel);
}

static struct channel *waiting;
static unsigned waited;

static int mount_at_third_call(void *argument, uint64_t done, uint64_t total)
{
	(void)argument;
	CHECK(done <= total);
	if (channel_is_waiting(waiting) && ++waited == 3)
		show_path(file_name);
	return 0;
}

static void read_waits_for_a_mount_that_returns_late(void)
{
	waiting = given_channel_on_ending_mount(FDMABUF_DIRECT, 0);
	waited = 0;
	hide_path();
	channel_on_progress(waiting, mount_at_third_call, NULL);
	check_read_continues(waiting);
	CHECK_EQUAL(waited, 3);
	CHECK(!channel_is_waiting(waiting));
	channel_close(waiting);
}

static void mount_that_never_returns_is_an_error(void)
{
	struct channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 150);
	time_t begin = time(NULL);

	hide_path();
	check_read_fails(channel, ENOTCONN, "not returned within 150 ms");
	CHECK(strstr(fdmabuf_error(), "no such file"));
	CHECK(time(NULL) - begin <= 2);
	/* The next read finds the mount. */
	show_path(file_name);
	check_read_continues(channel);
	channel_close(channel);
}

static void read_does_not_wait_if_the_caller_forbids_it(void)
{
	struct channel *channel =
		given_channel_on_ending_mount(FDMABUF_AUTO, FDMABUF_MOUNT_WAIT_NONE);

	check_read_fails(channel, ENOTCONN,
			 "the FUSE server of this mount has ended: mount it again");
	channel_close(channel);
}

static int stop_waiting(void *channel, uint64_t done, uint64_t total)
{
	CHECK(done <= total);
	return channel_is_waiting(channel);
}

static void waiting_can_be_cancelled(void)
{
	struct channel *channel =
		given_channel_on_ending_mount(FDMABUF_AUTO, FDMABUF_MOUNT_WAIT_MAX);

	hide_path();
	channel_on_progress(channel, stop_waiting, channel);
	check_read_fails(channel, ECANCELED, "cancelled");
	channel_close(channel);
}

static void another_file_on_the_returned_mount_is_refused(void)
{
	struct channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);
	int fd;

	hide_path();
	fd = open(other_name, O_WRONLY | O_CREAT, 0600);
	CHECK(fd >= 0 && !ftruncate(fd, 16 * BLOCK));
	close(fd);
	show_path(other_name);
	check_read_fails(channel, ESTALE, "another file at this path");
	channel_close(channel);
}

/* Progress functions that change the file between the start of the read and the mount's return. */
static int change_size(void *argument, uint64_t done, uint64_t total)
{
	(void)argument;
	CHECK(done <= total);
	CHECK(!truncate(file_name, 17 * BLOCK));
	if (access(file->real_path, F_OK))
		show_path(file_name);
	return 0;
}

static int change_time(void *argument, uint64_t done, uint64_t total)
{
	static const struct timespec times[] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1 } };

	(void)argument;
	CHECK(done <= total);
	CHECK(!utimensat(AT_FDCWD, file_name, times, 0));
	if (access(file->real_path, F_OK))
		show_path(file_name);
	return 0;
}

static void changed_file_on_the_returned_mount_is_refused(void)
{
	struct channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);

	hide_path();
	channel_on_progress(channel, change_size, NULL);
	check_read_fails(channel, ESTALE, "the file was resized meanwhile");
	channel_close(channel);

	channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);
	hide_path();
	channel_on_progress(channel, change_time, NULL);
	check_read_fails(channel, ESTALE, "written to meanwhile");
	channel_close(channel);
}

static void another_block_size_on_the_returned_mount_is_refused(void)
{
	struct channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);

	file->block_size = BLOCK / 2;
	check_read_fails(channel, ESTALE, "another block size (4096, before: 2048)");
	channel_close(channel);
}

static void same_file_without_a_new_mount_is_not_used(void)
{
	struct channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 1);
	struct stat status;

	simulation.not_fuse = true;	/* as a file below the mountpoint is */
	check_read_fails(channel, ENOTCONN, "no new FUSE mount at its path");
	channel_close(channel);

	channel = given_channel_on_ending_mount(FDMABUF_AUTO, 1);
	CHECK(!stat(file_name, &status));
	file->handle->device = status.st_dev;
	check_read_fails(channel, ENOTCONN, "no new FUSE mount at its path");
	channel_close(channel);
}

static void file_without_a_path_cannot_return(void)
{
	struct channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);

	free(file->real_path);
	file->real_path = NULL;
	check_read_fails(channel, ENOTCONN, "has no path");
	channel_close(channel);
}

static void returned_mount_without_tokens_switches_to_bounce(void)
{
	struct channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);

	simulation.register_error_later = EACCES;
	check_read_continues(channel);
	CHECK_EQUAL(channel_path(channel), FDMABUF_BOUNCE);
	CHECK_EQUAL(channel_reason(channel), FDMABUF_REASON_REFUSED);
	CHECK(strstr(channel_reason_text(channel),
		     "the mount has returned and gives no token: broker refused"));
	CHECK_EQUAL(counters_of(channel).bytes_direct + counters_of(channel).bytes_copied,
		    16 * BLOCK);
	channel_close(channel);
}

static void returned_mount_without_tokens_is_an_error_where_bounce_is_forbidden(void)
{
	struct channel *channel = given_channel_on_ending_mount(FDMABUF_DIRECT, 0);

	simulation.register_error_later = EACCES;
	CHECK_EQUAL(channel_read(channel, 0, 0, 16 * BLOCK, 0), -ESTALE);
	CHECK(strstr(fdmabuf_error(),
		     "the mount has returned and gives no token: broker refused"));
	/* The next one asks again. */
	CHECK_EQUAL(channel_read(channel, 0, 0, 16 * BLOCK, 0), -EACCES);
	CHECK(strstr(fdmabuf_error(), "direct path impossible: broker refused"));
	simulation.register_error_later = 0;
	check_read_continues(channel);
	CHECK_EQUAL(channel_reason(channel), FDMABUF_REASON_NONE);
	channel_close(channel);
}

static int make_present_mount_old(void *argument, uint64_t done, uint64_t total)
{
	(void)argument;
	CHECK(done <= total);
	file->handle->device = OLD_MOUNT_DEVICE;
	return 0;
}

static void server_that_ends_each_time_is_an_error(void)
{
	struct channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);

	channel_on_progress(channel, make_present_mount_old, NULL);
	simulation.end_again = true;
	CHECK_EQUAL(channel_read(channel, 0, 0, 16 * BLOCK, 0), -ENOTCONN);
	CHECK(strstr(fdmabuf_error(), "ended 4 times"));
	CHECK_EQUAL(counters_of(channel).reopens, 3);
	channel_close(channel);
}

static void bounce_continues_on_the_returned_mount(void)
{
	struct channel *channel = given_channel_on_ending_mount(FDMABUF_BOUNCE, 0);

	check_read_continues(channel);
	CHECK_EQUAL(counters_of(channel).tokens, 0);
	CHECK_EQUAL(channel_reason(channel), FDMABUF_REASON_ASKED);
	channel_close(channel);
}

static void read_without_a_ring_continues_on_the_returned_mount(void)
{
	struct channel *channel;

	given_file_on_mount("################", 16 * BLOCK);
	simulation.no_ring = true;
	channel = given_channel(FDMABUF_AUTO);
	simulate_end(file->handle->fd);
	check_read_continues(channel);
	channel_close(channel);
}

static void partial_blocks_continue_on_the_returned_mount(void)
{
	struct channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);

	simulate_end(file->handle->fd);
	simulation.end_request = 0;
	/* The path leads nowhere, as one through a directory of the mount that has ended does. */
	free(file->path);
	file->path = strdup("gone/file");
	CHECK_EQUAL(channel_read(channel, 10, 10, 15 * BLOCK, 0), 15 * BLOCK);
	check_arrived(10, 10, 15 * BLOCK, 0);
	CHECK_EQUAL(counters_of(channel).reopens, 1);
	CHECK_EQUAL(counters_of(channel).bytes_direct, 14 * BLOCK);
	channel_close(channel);
}

static void other_channels_of_the_file_use_the_returned_mount(void)
{
	struct channel *channel = given_channel_on_ending_mount(FDMABUF_DIRECT, 0);
	struct channel *direct = given_channel(FDMABUF_DIRECT);
	struct channel *bounce = given_channel(FDMABUF_BOUNCE);

	check_read_continues(channel);
	CHECK_EQUAL(channel_read(direct, 0, 0, 16 * BLOCK, 0), 16 * BLOCK);
	CHECK_EQUAL(counters_of(direct).tokens, 2);
	CHECK_EQUAL(counters_of(direct).reopens, 0);
	CHECK_EQUAL(channel_read(bounce, 0, 0, 16 * BLOCK, 0), 16 * BLOCK);
	CHECK_EQUAL(channel_path(bounce), FDMABUF_BOUNCE);
	channel_close(bounce);
	channel_close(direct);
	channel_close(channel);
}

/* The server itself returns ENOTCONN. */
static void enotconn_of_a_server_that_has_not_ended_is_an_error(void)
{
	struct channel *channel = given_channel_on_ending_mount(FDMABUF_AUTO, 0);

	simulation.end_request = 0;
	simulation.fail_request = 2;
	simulation.fail_error = ENOTCONN;
	check_read_fails(channel, ENOTCONN, "reading at offset");
	channel_close(channel);
}

static void channel_on_a_dead_mount_is_refused(void)
{
	struct channel *channel;

	given_file_on_mount("####", 4 * BLOCK);
	simulate_end(file->handle->fd);
	CHECK_EQUAL(channel_open(file, buffer, NULL, &channel), -ENOTCONN);
	CHECK(strstr(fdmabuf_error(), "server of this mount has ended"));
}

static void channel_that_is_direct_again_has_no_reason(void)
{
	struct channel *channel;

	given_file("################", 16 * BLOCK);
	channel = given_channel(FDMABUF_DIRECT);
	simulation.revoke_request = 3;
	simulation.register_error_later = EPERM;
	CHECK_EQUAL(channel_read(channel, 0, 0, 16 * BLOCK, 0), -ESTALE);
	simulation.register_error_later = 0;
	CHECK_EQUAL(channel_read(channel, 0, 0, 16 * BLOCK, 0), 16 * BLOCK);
	CHECK_EQUAL(channel_reason(channel), FDMABUF_REASON_NONE);
	channel_close(channel);
}

/* The requests that a failed read leaves incomplete must not be submitted by the next read. */
static void failed_read_leaves_nothing_to_the_next(void)
{
	struct channel *channel;

	given_file("################", 16 * BLOCK);
	channel = given_channel(FDMABUF_DIRECT);
	simulation.revoke_request = 1;
	simulation.register_error_later = EPERM;
	CHECK_EQUAL(channel_read(channel, 0, 0, 16 * BLOCK, 0), -ESTALE);
	simulation.register_error_later = 0;
	memset(memory, UNTOUCHED, sizeof(memory));
	CHECK_EQUAL(channel_read(channel, 0, 32 * BLOCK, BLOCK, 0), BLOCK);
	check_arrived(0, 32 * BLOCK, BLOCK, 0);
	channel_close(channel);
}

static void device_error_ends_the_read(void)
{
	struct channel *channel;

	given_file("################", 16 * BLOCK);
	channel = given_channel(FDMABUF_AUTO);
	simulation.fail_request = 2;
	simulation.fail_error = EIO;
	CHECK_EQUAL(channel_read(channel, 0, 0, 16 * BLOCK, 0), -EIO);
	CHECK(strstr(fdmabuf_error(), "offset"));
	CHECK_EQUAL(simulation.in_flight, 0);
	simulation.fail_error = 0;
	CHECK_EQUAL(channel_read(channel, 0, 0, 16 * BLOCK, 0), 16 * BLOCK);
	channel_close(channel);
}

static void endless_eagain_is_an_error(void)
{
	struct channel *channel;

	given_file("#", BLOCK);
	channel = given_channel(FDMABUF_AUTO);
	simulation.again_percent = 100;
	CHECK_EQUAL(channel_read(channel, 0, 0, BLOCK, 0), -EAGAIN);
	channel_close(channel);
}

static int stop_at_third_call(void *argument, uint64_t done, uint64_t total)
{
	CHECK(done <= total);
	return ++*(int *)argument == 3;
}

static void progress_function_cancels(void)
{
	struct channel *channel;
	int calls = 0;

	given_file("################################", 32 * BLOCK);
	channel = given_channel(FDMABUF_AUTO);
	channel_on_progress(channel, stop_at_third_call, &calls);
	CHECK_EQUAL(channel_read(channel, 0, 0, 32 * BLOCK, 0), -ECANCELED);
	CHECK(calls >= 3);	/* again while it is being cancelled */
	CHECK_EQUAL(simulation.in_flight, 0);
	channel_close(channel);
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
		struct fdmabuf_queue_options direct = {
			.size = sizeof(direct), .path = FDMABUF_DIRECT,
		};
		struct channel *channel;

		given_file("##", 2 * BLOCK - 9);
		simulation.register_error = cases[i].register_error;
		simulation.no_tokens = cases[i].no_tokens;
		simulation.no_ring = cases[i].no_ring;
		file->handle->is_direct = !cases[i].no_direct;
		file->handle->is_fuse = !cases[i].no_fuse;
		buffer->dmabuf_fd = cases[i].no_dmabuf ? -1 : 0;

		CHECK_EQUAL(channel_open(file, buffer, &direct, &channel),
			    -cases[i].error);
		CHECK(strstr(fdmabuf_error(), cases[i].text));

		channel = given_channel(FDMABUF_AUTO);
		CHECK_EQUAL(channel_path(channel), FDMABUF_BOUNCE);
		CHECK_EQUAL(channel_reason(channel), cases[i].reason);
		CHECK(strstr(channel_reason_text(channel), cases[i].text));
		CHECK_EQUAL(channel_read(channel, 0, 0, BUFFER_SIZE, 0), 2 * BLOCK - 9);
		check_arrived(0, 0, 2 * BLOCK - 9, 0);
		CHECK_EQUAL(counters_of(channel).bytes_copied, 2 * BLOCK - 9);
		channel_close(channel);
	}
}

static void buffer_that_the_cpu_cannot_reach_has_no_bounce(void)
{
	struct channel *channel;

	given_file("##..", 4 * BLOCK);
	buffer->map = NULL;
	channel = given_channel(FDMABUF_AUTO);
	CHECK_EQUAL(channel_read(channel, 0, 0, 2 * BLOCK, 0), 2 * BLOCK);
	CHECK_EQUAL(channel_read(channel, 0, 0, 4 * BLOCK, 0), -EOPNOTSUPP);
	channel_close(channel);
	simulation.no_tokens = true;
	CHECK_EQUAL(channel_open(file, buffer, NULL, &channel), -EOPNOTSUPP);
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
		struct fdmabuf_queue_options options = {
			.size = sizeof(options),
			.path = FDMABUF_BOUNCE,
			.depth = cases[i].depth,
			.chunk = cases[i].chunk,
		};
		const struct fdmabuf_queue *queue;
		struct channel *channel;

		CHECK_EQUAL(channel_open(file, buffer, &options, &channel), 0);
		queue = channel->queue;
		CHECK((uint64_t)queue->host_depth * queue->host_chunk <= 16 << 20);
		CHECK(queue->host_depth >= 1 && queue->host_depth <= queue->depth);
		CHECK_EQUAL(channel_read(channel, 0, 0, BLOCK, 0), BLOCK);
		channel_close(channel);
	}
}

static void bad_options_are_refused(void)
{
	static const struct fdmabuf_queue_options cases[] = {
		{ .path = 3 }, { .depth = 257 }, { .chunk = 4095 }, { .chunk = (1u << 30) + 4096 },
		{ .tokens = FDMABUF_TOKENS_MAX + 1 }, { .mount_wait = FDMABUF_MOUNT_WAIT_MAX + 1 },
	};
	struct channel *channel;

	given_file("#", BLOCK);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fdmabuf_queue_options options = cases[i];

		CHECK_EQUAL(channel_open(file, buffer, &options, &channel), -EINVAL);
		CHECK(strstr(fdmabuf_error(), "sizeof"));
		options.size = sizeof(options);
		CHECK_EQUAL(channel_open(file, buffer, &options, &channel), -EINVAL);
		CHECK(!strstr(fdmabuf_error(), "sizeof"));
	}
	channel = given_channel(FDMABUF_AUTO);
	CHECK_EQUAL(channel_read(channel, 0, 0, BLOCK, 2), -EINVAL);
	channel_close(channel);
}

/* The argument is the number of reads at random, for a program that sanitizers make slow. */
int main(int argc, char **argv)
{
	if (argc > 1)
		random_rounds = atoi(argv[1]);
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
	remove_given();
	return 0;
}
