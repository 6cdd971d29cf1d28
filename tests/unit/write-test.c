/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests writes on a simulated kernel: the bytes that get to the files, those that must not change,
 * the order of requests, and how far a write got that failed.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "check.h"
#include "queue/queue.h"
#include "simulated-ring.h"
#include "simulation.h"

#define FULL "################################"	/* 32 blocks */
#define SIZE (31 * BLOCK + 700)			/* of a file that ends in a block */
#define RANGES_MAX 24

static unsigned number_of(const struct fdmabuf_file *searched)
{
	for (unsigned i = 0; i < SEVERAL; i++)
		if (files[i] == searched)
			return i;
	return SEVERAL;
}

static const unsigned char *memory_of_range(const struct fdmabuf_range *range)
{
	return range->buffer->map + range->buffer_offset;
}

/* Fills the buffers with bytes that no file has. */
static void fill_memories(unsigned long long *random)
{
	for (size_t i = 0; i < sizeof(memories); i += sizeof(unsigned long long)) {
		unsigned long long word = next_random(random);

		memcpy(*memories + i, &word, sizeof(word));
	}
}

/* Makes files, and buffers with content. */
static void given_files(const char *map, uint64_t size)
{
	unsigned long long random = 7;

	given_several(map, size);
	fill_memories(&random);
}

/* Changes the models as writes of the ranges do. */
static void write_to_models(const struct fdmabuf_range *ranges, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		unsigned number = number_of(ranges[i].file);

		if (!ranges[i].length)
			continue;
		memcpy(models[number] + ranges[i].file_offset, memory_of_range(&ranges[i]),
		       ranges[i].length);
		model_sizes[number] = max_u64(model_sizes[number],
					      ranges[i].file_offset + ranges[i].length);
	}
}

static uint64_t total_of(const struct fdmabuf_range *ranges, size_t count)
{
	uint64_t total = 0;

	for (size_t i = 0; i < count; i++)
		total += ranges[i].length;
	return total;
}

/* Writes all ranges, and checks the files. */
static void check_write(struct fdmabuf_queue *queue, const struct fdmabuf_range *ranges,
			size_t count, unsigned flags)
{
	CHECK_EQUAL(fdmabuf_write(queue, ranges, count, flags), total_of(ranges, count));
	CHECK_EQUAL(simulation.in_flight, 0);
	write_to_models(ranges, count);
	check_models();
}

/* Checks that what a write that failed says has moved is in the file. */
static void check_not_overstated(const struct fdmabuf_transfer *t,
				 const struct fdmabuf_range *ranges, size_t count)
{
	static unsigned char found[BUFFER_SIZE];

	for (size_t i = 0; i < count; i++) {
		struct fdmabuf_result result = result_of_range(t, i);

		CHECK(result.done <= ranges[i].length);
		CHECK(result.done == ranges[i].length || result.error);
		CHECK_EQUAL(fdmabuf_file_pread(ranges[i].file, found, result.done,
					       ranges[i].file_offset), result.done);
		CHECK(!memcmp(found, memory_of_range(&ranges[i]), result.done));
	}
}

/* --------------------------------------------------------------- the bytes */

static void whole_blocks_are_written_directly(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_range range;

	given_files(FULL, 32 * BLOCK);
	queue = given_queue(FDMABUF_DIRECT, 3, 0);
	range = range_of(0, 4 * BLOCK, 0, 20 * BLOCK, 12 * BLOCK);
	check_write(queue, &range, 1, 0);
	CHECK_EQUAL(counters_of_queue(queue).bytes_direct, 12 * BLOCK);
	CHECK_EQUAL(counters_of_queue(queue).bytes_copied, 0);
	CHECK_EQUAL(counters_of_queue(queue).requests, 3);
	CHECK_EQUAL(simulation.first_plain, 0);
	fdmabuf_queue_close(queue);
}

static void partial_blocks_are_written_by_the_page_cache_after_all_others(void)
{
	struct fdmabuf_range ranges[4];
	struct fdmabuf_queue *queue;

	for (unsigned seed = 1; seed < 20; seed++) {
		given_files(FULL, SIZE);
		simulation.random = seed;
		queue = given_queue(FDMABUF_AUTO, 5, 0);
		ranges[0] = range_of(0, 10, 0, 10, 9 * BLOCK);
		ranges[1] = range_of(0, 12 * BLOCK + 10, 1, 10, 9 * BLOCK);
		ranges[2] = range_of(1, 10, 2, 11, 9 * BLOCK);	/* by bounce */
		ranges[3] = range_of(1, 16 * BLOCK + 5, 0, 20 * BLOCK + 5, 9);
		check_write(queue, ranges, 4, 0);
		CHECK(simulation.first_plain > simulation.last_block);
		CHECK(!simulation.is_mixed);
		CHECK_EQUAL(counters_of_queue(queue).bytes_direct, 16 * BLOCK);
		fdmabuf_queue_close(queue);
	}
}

static void contiguous_writes_are_joined(void)
{
	struct fdmabuf_range ranges[100];
	struct fdmabuf_queue *queue;

	given_files("", 0);
	queue = given_queue(FDMABUF_DIRECT, 3, 0);
	for (unsigned i = 0; i < 100; i++)
		ranges[i] = range_of(0, i * 7 % 100 * 1024, 0, i * 7 % 100 * 1024, 1024);
	check_write(queue, ranges, 100, 0);
	CHECK_EQUAL(counters_of_queue(queue).requests, 100 * 1024 / CHUNK + 1);
	CHECK_EQUAL(counters_of_queue(queue).bytes_copied, 0);
	fdmabuf_queue_close(queue);
}

static void scattered_memory_is_written_in_one_command(void)
{
	struct fdmabuf_range ranges[16];
	struct fdmabuf_queue *queue;

	for (unsigned no_vectors = 0; no_vectors < 2; no_vectors++) {
		given_files("", 0);
		simulation.no_vectors = no_vectors;
		queue = given_queue(FDMABUF_DIRECT, 3, 0);
		for (unsigned i = 0; i < 16; i++)
			ranges[i] = range_of(0, i * BLOCK, 0, (31 - 2 * i) * BLOCK, BLOCK);
		check_write(queue, ranges, 16, 0);
		CHECK_EQUAL(counters_of_queue(queue).bytes_direct, 16 * BLOCK);
		if (!no_vectors)
			CHECK_EQUAL(simulation.requests, 16 * BLOCK / CHUNK);
		fdmabuf_queue_close(queue);
	}
}

static void file_grows_and_never_shrinks(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_range ranges[2];

	given_files("..##", 3 * BLOCK + 5);
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	ranges[0] = range_of(0, 0, 0, 0, BLOCK);	/* into a hole, before the end */
	check_write(queue, ranges, 1, 0);
	ranges[0] = range_of(0, 3 * BLOCK, 0, 8 * BLOCK, BLOCK + 17);
	ranges[1] = range_of(1, 40 * BLOCK + 3, 1, 3, 2 * BLOCK + 50);	/* far behind the end */
	check_write(queue, ranges, 2, FDMABUF_SYNC);
	CHECK_EQUAL(model_sizes[0], 4 * BLOCK + 17);
	CHECK_EQUAL(model_sizes[1], 42 * BLOCK + 53);
	fdmabuf_queue_close(queue);
}

static void file_without_direct_requests_is_written_by_the_page_cache(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_range range;
	struct fdmabuf_transfer *t;

	given_files(FULL, SIZE);
	files[0]->handle->is_direct = false;
	close(files[0]->handle->fd);
	files[0]->handle->fd = files[0]->handle->plain_fd;
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	range = range_of(0, 4 * BLOCK, 0, 9 * BLOCK, 12 * BLOCK + 3);
	t = start(queue, FDMABUF_WRITE, &range, 1, 0);
	wait_for(t);
	CHECK_EQUAL(result_of_range(t, 0).reason, FDMABUF_REASON_NOT_DIRECT);
	CHECK_EQUAL(result_of_range(t, 0).path, FDMABUF_BOUNCE);
	fdmabuf_transfer_free(t);
	write_to_models(&range, 1);
	check_models();
	CHECK_EQUAL(simulation.last_block, 0);
	fdmabuf_queue_close(queue);
}

static void overlapping_writes_leave_the_bytes_of_either(void)
{
	static unsigned char found[20 * BLOCK];
	struct fdmabuf_range ranges[2];

	for (unsigned seed = 1; seed < 30; seed++) {
		struct fdmabuf_queue *queue;

		given_files(FULL, SIZE);
		simulation.random = seed;
		queue = given_queue(FDMABUF_AUTO, 3, 0);
		ranges[0] = range_of(0, 10, 0, 10, 12 * BLOCK);
		ranges[1] = range_of(0, 5 * BLOCK + 7, 1, 7, 12 * BLOCK);
		CHECK_EQUAL(fdmabuf_write(queue, ranges, 2, 0), 24 * BLOCK);
		CHECK_EQUAL(fdmabuf_file_pread(files[0], found, sizeof(found), 0), sizeof(found));
		for (uint64_t i = 0; i < sizeof(found); i++) {
			bool in_first = i >= 10 && i < 10 + 12 * BLOCK;
			bool in_second = i >= 5 * BLOCK + 7 && i < 17 * BLOCK + 7;

			CHECK((in_first && found[i] == memories[0][i]) ||
			      (in_second && found[i] == memories[1][i - 5 * BLOCK]) ||
			      (!in_first && !in_second && found[i] == models[0][i]));
		}
		fdmabuf_queue_close(queue);
	}
}

static void short_writes_go_on(void)
{
	struct fdmabuf_range ranges[2];

	for (unsigned seed = 1; seed < 200; seed++) {
		struct fdmabuf_queue *queue;

		given_files(FULL, SIZE);
		simulation.random = seed;
		simulation.short_results = seed % 2;
		simulation.short_bytes = seed % 3 == 0;
		queue = given_queue(seed % 5 ? FDMABUF_AUTO : FDMABUF_BOUNCE, 3, 0);
		ranges[0] = range_of(0, 10, 0, 10, 12 * BLOCK);
		ranges[1] = range_of(1, 2 * BLOCK, 1, 17, 12 * BLOCK);
		check_write(queue, ranges, 2, 0);
		fdmabuf_queue_close(queue);
	}
}

/* ------------------------------------------------------------------- errors */

/* Writes a range from block 2 on to a filesystem that is full from block 13 on. */
static void check_full(enum fdmabuf_path path, unsigned depth, int error, unsigned seed)
{
	struct fdmabuf_range ranges[2];
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *t;
	uint64_t done;

	given_files("", 0);
	simulation.random = seed;
	simulation.full_from = 13 * BLOCK;
	simulation.fail_error = error;
	queue = given_queue(path, depth, 0);
	ranges[0] = range_of(0, 2 * BLOCK, 0, 2 * BLOCK, 25 * BLOCK);
	ranges[1] = range_of(1, 0, 1, 0, BLOCK);
	t = start(queue, FDMABUF_WRITE, ranges, 2, 0);
	wait_for(t);
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), -error);
	CHECK(strstr(fdmabuf_transfer_error(t), "writing at offset"));
	CHECK(strstr(fdmabuf_transfer_error(t), "write the rest"));
	CHECK_EQUAL(simulation.in_flight, 0);
	check_not_overstated(t, ranges, 2);
	done = result_of_range(t, 0).done;
	CHECK(done <= 11 * BLOCK);
	if (depth == 1)
		CHECK_EQUAL(done, 11 * BLOCK);
	CHECK_EQUAL(result_of_range(t, 0).error, -error);
	fdmabuf_transfer_free(t);
	/* With more space, the rest is written. */
	simulation.full_from = 0;
	simulation.fail_error = 0;
	write_to_models(ranges, 2);
	ranges[0] = range_of(0, 2 * BLOCK + done, 0, 2 * BLOCK + done, 25 * BLOCK - done);
	check_write(queue, ranges, 2, 0);
	fdmabuf_queue_close(queue);
}

static void full_filesystem_ends_a_write_where_it_is_full(void)
{
	for (unsigned seed = 1; seed < 60; seed++)
		check_full(seed % (FDMABUF_BOUNCE + 1), 1 + seed / 3 % 4,
			   seed % 2 ? ENOSPC : EDQUOT, seed);
}

static void any_failure_is_not_overstated(void)
{
	unsigned long long random = 99;

	for (unsigned round = 0; round < 400; round++) {
		struct fdmabuf_range ranges[3];
		struct fdmabuf_queue *queue;
		struct fdmabuf_transfer *t;
		bool cancels = round % 3 == 0;

		if (round % 20 == 0)
			given_files("", 0);
		else
			for (unsigned i = 0; i < SEVERAL; i++)
				CHECK(!ftruncate(files[i]->handle->fd, 0));
		simulation.requests = 0;
		simulation.random = round + 1;
		simulation.short_results = round % 2;
		simulation.short_bytes = round % 5 == 0;
		simulation.fail_error = cancels ? 0 : EIO;
		simulation.fail_request = 1 + next_random(&random) % 12;
		queue = given_queue(round % 4 ? FDMABUF_AUTO : FDMABUF_BOUNCE, 3, 0);
		ranges[0] = range_of(0, 20, 0, 20, 12 * BLOCK);
		ranges[1] = range_of(1, 2 * BLOCK, 1, 17, 7 * BLOCK);
		ranges[2] = range_of(0, 12 * BLOCK + 20, 1, 12 * BLOCK + 20, 6 * BLOCK);
		t = start(queue, FDMABUF_WRITE, ranges, 3, 0);
		for (unsigned i = 0; cancels && i < round % 7; i++)
			fdmabuf_queue_wait(queue, 0);
		if (cancels)
			CHECK_EQUAL(fdmabuf_transfer_cancel(t, -1), 0);
		wait_for(t);
		CHECK_EQUAL(simulation.in_flight, 0);
		check_not_overstated(t, ranges, 3);
		fdmabuf_transfer_free(t);
		fdmabuf_queue_close(queue);
	}
}

static void token_for_reading_does_not_write(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_range range;
	struct fdmabuf_transfer *t;

	given_files(FULL, SIZE);
	simulation.no_write_token = true;
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	range = range_of(0, 4 * BLOCK, 0, 9 * BLOCK, 12 * BLOCK);
	t = start(queue, FDMABUF_WRITE, &range, 1, 0);
	wait_for(t);
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), 12 * BLOCK);
	CHECK_EQUAL(result_of_range(t, 0).path, FDMABUF_BOUNCE);
	CHECK_EQUAL(result_of_range(t, 0).reason, FDMABUF_REASON_REFUSED);
	CHECK(strstr(result_of_range(t, 0).text, "does not allow writing"));
	fdmabuf_transfer_free(t);
	write_to_models(&range, 1);
	check_models();
	CHECK_EQUAL(counters_of_queue(queue).bytes_copied, 12 * BLOCK);
	/* Reading goes on directly, with the same token. */
	t = start(queue, FDMABUF_READ, &range, 1, 0);
	wait_for(t);
	CHECK_EQUAL(result_of_range(t, 0).path, FDMABUF_DIRECT);
	fdmabuf_transfer_free(t);
	CHECK_EQUAL(counters_of_queue(queue).bytes_direct, 12 * BLOCK);
	CHECK_EQUAL(counters_of_queue(queue).tokens, 1);
	fdmabuf_queue_close(queue);
}

static void token_for_reading_is_an_error_where_bounce_is_forbidden(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_range range;

	given_files(FULL, SIZE);
	simulation.no_write_token = true;
	queue = given_queue(FDMABUF_DIRECT, 3, 0);
	range = range_of(0, 4 * BLOCK, 0, 9 * BLOCK, 12 * BLOCK);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQUAL(fdmabuf_write(queue, &range, 1, 0), -EACCES);
		CHECK(strstr(fdmabuf_error(), "allow writing"));
	}
	CHECK_EQUAL(counters_of_queue(queue).bytes_copied, 0);
	check_models();
	/* A new token can allow more. */
	simulation.no_write_token = false;
	check_write(queue, &range, 1, 0);
	fdmabuf_queue_close(queue);
}

/* The token that allowed no writing was given up for another one: the new one can allow it. */
static void new_token_is_asked_for_its_directions_again(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_range range, other;
	struct fdmabuf_transfer *t;

	given_files(FULL, SIZE);
	simulation.no_write_token = true;
	simulation.tokens_max = 1;
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	range = range_of(0, 4 * BLOCK, 0, 9 * BLOCK, 12 * BLOCK);
	other = range_of(1, 4 * BLOCK, 1, 9 * BLOCK, BLOCK);
	check_write(queue, &range, 1, 0);
	simulation.no_write_token = false;
	check_write(queue, &other, 1, 0);
	t = start(queue, FDMABUF_WRITE, &range, 1, 0);
	wait_for(t);
	CHECK_EQUAL(result_of_range(t, 0).path, FDMABUF_DIRECT);
	CHECK_EQUAL(result_of_range(t, 0).reason, FDMABUF_REASON_NONE);
	fdmabuf_transfer_free(t);
	CHECK_EQUAL(counters_of_queue(queue).bytes_direct, 13 * BLOCK);
	fdmabuf_queue_close(queue);
}

static void refused_request_is_written_by_bounce(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_range range;

	given_files(FULL, SIZE);
	simulation.refuse_request = 2;
	queue = given_queue(FDMABUF_AUTO, 1, 0);
	range = range_of(0, 4 * BLOCK, 0, 8 * BLOCK, 12 * BLOCK);
	check_write(queue, &range, 1, 0);
	CHECK_EQUAL(counters_of_queue(queue).bytes_direct, CHUNK);
	CHECK_EQUAL(counters_of_queue(queue).bytes_copied, 12 * BLOCK - CHUNK);
	fdmabuf_queue_close(queue);
	simulation.refuse_request = 1;
	queue = given_queue(FDMABUF_DIRECT, 1, 0);
	CHECK_EQUAL(fdmabuf_write(queue, &range, 1, 0), -EOPNOTSUPP);
	fdmabuf_queue_close(queue);
}

/* The filesystem accepts O_DIRECT in open(2) only. */
static void refused_o_direct_means_the_page_cache(void)
{
	for (unsigned seed = 1; seed < 40; seed++) {
		struct fdmabuf_queue *queue;
		struct fdmabuf_range range;

		given_files(FULL, SIZE);
		simulation.random = seed;
		simulation.no_direct_host = true;
		simulation.again_percent = 30;
		queue = given_queue(FDMABUF_BOUNCE, 4, 0);
		range = range_of(0, 4 * BLOCK, 0, 8 * BLOCK, 20 * BLOCK);
		check_write(queue, &range, 1, 0);
		memset(memories[0], 0, BUFFER_SIZE);
		CHECK_EQUAL(fdmabuf_read(queue, &range, 1, 0), 20 * BLOCK);
		CHECK(!memcmp(memories[0] + 8 * BLOCK, models[0] + 4 * BLOCK, 20 * BLOCK));
		fdmabuf_queue_close(queue);
	}
}

static void wrong_directions_and_flags_are_refused(void)
{
	struct fdmabuf_file *reader, *writer;
	struct fdmabuf_queue *queue;
	struct fdmabuf_range range;

	given_files(FULL, SIZE);
	reader = open_simulated(file_name, O_RDONLY);
	writer = open_simulated(file_name, O_WRONLY);
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	range = range_of(0, 0, 0, 0, BLOCK);
	range.file = reader;
	CHECK_EQUAL(fdmabuf_write(queue, &range, 1, 0), -EBADF);
	CHECK(strstr(fdmabuf_error(), "not open for writing"));
	CHECK_EQUAL(fdmabuf_read(queue, &range, 1, 0), 0);
	range.file = writer;
	CHECK_EQUAL(fdmabuf_read(queue, &range, 1, 0), -EBADF);
	CHECK(strstr(fdmabuf_error(), "not open for reading"));
	CHECK_EQUAL(fdmabuf_write(queue, &range, 1, 0), BLOCK);
	range = range_of(0, 0, 0, 0, BLOCK);
	CHECK_EQUAL(fdmabuf_write(queue, &range, 1, FDMABUF_WHOLE_BLOCKS), -EINVAL);
	CHECK_EQUAL(fdmabuf_read(queue, &range, 1, FDMABUF_SYNC), -EINVAL);
	CHECK_EQUAL(fdmabuf_write(queue, &range, 1, 4), -EINVAL);
	range = range_of(0, 10, 0, 10, BLOCK);
	fdmabuf_queue_close(queue);
	queue = given_queue(FDMABUF_DIRECT, 3, 0);
	CHECK_EQUAL(fdmabuf_write(queue, &range, 1, 0), -EINVAL);
	CHECK(strstr(fdmabuf_error(), "partial blocks"));
	fdmabuf_queue_close(queue);
	fdmabuf_file_close(reader);
	fdmabuf_file_close(writer);
}

/* A page of the page cache has several blocks. */
static void blocks_smaller_than_a_page_are_partial(void)
{
	struct fdmabuf_result result = { .size = sizeof(result) };
	struct fdmabuf_queue *queue;
	struct fdmabuf_range range;

	given_files(FULL, SIZE);
	files[0]->block_size = 512;
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	range = range_of(0, BLOCK + 512, 0, BLOCK + 512, 9 * BLOCK);
	CHECK_EQUAL(fdmabuf_queue_check(queue, FDMABUF_WRITE, &range, 0, &result), 0);
	CHECK_EQUAL(result.reason, FDMABUF_REASON_PARTIAL_BLOCK);
	check_write(queue, &range, 1, 0);
	CHECK_EQUAL(counters_of_queue(queue).bytes_copied, BLOCK);
	CHECK_EQUAL(fdmabuf_queue_check(queue, FDMABUF_READ, &range, 0, &result), 0);
	CHECK_EQUAL(result.reason, FDMABUF_REASON_NONE);
	fdmabuf_queue_close(queue);
}

/* --------------------------------------------------------------------- sync */

static void each_file_is_synced_once_after_all_writes(void)
{
	struct fdmabuf_range ranges[9];
	struct fdmabuf_queue *queue;

	for (unsigned seed = 1; seed < 20; seed++) {
		given_files(FULL, SIZE);
		simulation.random = seed;
		queue = given_queue(FDMABUF_AUTO, 4, 0);
		for (unsigned i = 0; i < 9; i++)
			ranges[i] = range_of(i % 2, i * 3 * BLOCK + 7, i % 3,
					     i * 3 * BLOCK + 7 + i % 2, 2 * BLOCK);
		check_write(queue, ranges, 9, FDMABUF_SYNC);
		CHECK_EQUAL(simulation.syncs, 2);
		CHECK(simulation.synced[0] != simulation.synced[1]);
		CHECK(!simulation.wrote_beside_sync);
		check_write(queue, ranges, 9, 0);
		CHECK_EQUAL(simulation.syncs, 2);
		fdmabuf_queue_close(queue);
	}
}

static void error_of_sync_is_the_transfers(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_range range;

	given_files(FULL, SIZE);
	queue = given_queue(FDMABUF_AUTO, 4, 0);
	range = range_of(0, 0, 0, 0, 9 * BLOCK);
	simulation.sync_error = EIO;
	CHECK_EQUAL(fdmabuf_write(queue, &range, 1, FDMABUF_SYNC), -EIO);
	CHECK_EQUAL(fdmabuf_write(queue, &range, 1, 0), 9 * BLOCK);
	simulation.sync_error = EAGAIN;
	CHECK_EQUAL(fdmabuf_write(queue, &range, 1, FDMABUF_SYNC), -EAGAIN);
	simulation.sync_error = 0;
	simulation.again_percent = 50;
	simulation.requests = 0;
	check_write(queue, &range, 1, FDMABUF_SYNC);
	fdmabuf_queue_close(queue);
}

static void sync_is_repeated_on_the_returned_mount(void)
{
	bool has_ended = true;

	for (int ends = 1; has_ended; ends++) {
		struct fdmabuf_queue *queue;
		struct fdmabuf_range range;
		int old;

		given_files(FULL, SIZE);
		queue = given_queue(FDMABUF_AUTO, 3, 0);
		range = range_of(0, 9, 0, 9, 16 * BLOCK);
		old = files[0]->handle->plain_fd;
		simulation.end_request = ends;
		check_write(queue, &range, 1, FDMABUF_SYNC);
		/* Up to the command that syncs. */
		has_ended = (int)simulation.requests >= ends;
		CHECK_EQUAL(counters_of_queue(queue).reopens, has_ended);
		CHECK((simulation.synced[(simulation.syncs - 1) % 4] != old) == has_ended);
		CHECK(has_ended || ends > 6);
		fdmabuf_queue_close(queue);
	}
}

/* ------------------------------------------------------------ at random */

/* Makes ranges that do not meet in the files. */
static size_t make_random_ranges(struct fdmabuf_range *ranges, unsigned long long *random)
{
	uint64_t used[SEVERAL] = { 0 };
	size_t count = 0, most = next_random(random) % RANGES_MAX;

	for (unsigned tries = 0; tries < most; tries++) {
		unsigned to = next_random(random) % SEVERAL;
		uint64_t length = next_random(random) % (next_random(random) % 2 ? 8 * BLOCK : 300);
		uint64_t from = next_random(random) % (50 * BLOCK), at = used[to];

		if (next_random(random) % 3 == 0)
			length = align_down(length, BLOCK);
		if (next_random(random) % 3 == 0)
			at += next_random(random) % (3 * BLOCK);
		if (next_random(random) % 3 == 0)
			at = align_up(at, BLOCK);
		if (next_random(random) % 3)
			from += (at - from) % BLOCK;
		if (at + length > MODEL_SIZE || from + length > BUFFER_SIZE)
			continue;
		used[to] = at + length;
		ranges[count++] = range_of(to, at, next_random(random) % SEVERAL, from, length);
	}
	shuffle_ranges(ranges, count, random);
	return count;
}

static void let_anything_happen(unsigned long long *random)
{
	simulation.short_results = next_random(random) % 2;
	simulation.short_bytes = next_random(random) % 3 == 0;
	simulation.again_percent = next_random(random) % 2 ? 30 : 0;
	simulation.interrupt_percent = next_random(random) % 2 ? 30 : 0;
	simulation.registrations = simulation.requests = simulation.max_in_flight = 0;
	simulation.revoke_request = next_random(random) % 20;
	simulation.revoke_again = next_random(random) % 3 == 0;
	simulation.end_request = next_random(random) % 20;
	simulation.refuse_request = next_random(random) % 2 ? next_random(random) % 20 : 0;
	simulation.no_vectors = next_random(random) % 4 == 0;
	simulation.no_write_token = next_random(random) % 8 == 0;
	simulation.tokens_max = next_random(random) % 2 ? 1 + next_random(random) % 4 : 0;
	simulation.is_mixed = simulation.wrote_beside_sync = false;
	restore_mounts();
}

static void any_vector_of_ranges_is_written_right_whatever_happens(void)
{
	static const char *const maps[] = { "", FULL, "..##..#.######....#####.#.######" };
	struct fdmabuf_range ranges[RANGES_MAX];
	unsigned long long random = 43;

	for (unsigned round = 0; round < 3000; round++) {
		unsigned depth = 1 + next_random(&random) % 5;
		struct fdmabuf_queue *queue;

		if (round % 30 == 0)
			given_files(maps[round / 30 % 3], SIZE);
		fill_memories(&random);
		let_anything_happen(&random);
		queue = given_queue(next_random(&random) % 5 ? FDMABUF_AUTO : FDMABUF_BOUNCE, depth,
				    1 + next_random(&random) % 5);
		for (unsigned i = 0; i <= round % 2; i++) {
			size_t count = make_random_ranges(ranges, &random);

			check_write(queue, ranges, count,
				    next_random(&random) % 3 ? 0 : FDMABUF_SYNC);
		}
		CHECK(simulation.max_in_flight <= depth);
		CHECK(simulation.short_bytes || !simulation.is_mixed);
		CHECK(!simulation.wrote_beside_sync);
		fdmabuf_queue_close(queue);
		CHECK_EQUAL(simulation.tokens, 0);
	}
}

int main(void)
{
	RUN(whole_blocks_are_written_directly);
	RUN(partial_blocks_are_written_by_the_page_cache_after_all_others);
	RUN(contiguous_writes_are_joined);
	RUN(scattered_memory_is_written_in_one_command);
	RUN(file_grows_and_never_shrinks);
	RUN(file_without_direct_requests_is_written_by_the_page_cache);
	RUN(overlapping_writes_leave_the_bytes_of_either);
	RUN(short_writes_go_on);
	RUN(full_filesystem_ends_a_write_where_it_is_full);
	RUN(any_failure_is_not_overstated);
	RUN(token_for_reading_does_not_write);
	RUN(token_for_reading_is_an_error_where_bounce_is_forbidden);
	RUN(new_token_is_asked_for_its_directions_again);
	RUN(refused_request_is_written_by_bounce);
	RUN(refused_o_direct_means_the_page_cache);
	RUN(wrong_directions_and_flags_are_refused);
	RUN(blocks_smaller_than_a_page_are_partial);
	RUN(each_file_is_synced_once_after_all_writes);
	RUN(error_of_sync_is_the_transfers);
	RUN(sync_is_repeated_on_the_returned_mount);
	RUN(any_vector_of_ranges_is_written_right_whatever_happens);
	remove_given();
	return 0;
}
