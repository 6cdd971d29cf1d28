/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests queues with several files, buffers and transfers on a simulated kernel: vectors of
 * ranges, tokens, cancelling, fairness, event loops, and what happens after fork(2).
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "base/error.h"
#include "check.h"
#include "buffer/exporter.h"
#include "common/clock.h"
#include "queue/queue.h"
#include "simulated-ring.h"
#include "simulation.h"

#define FULL "################################"	/* 32 blocks */
#define SIZE (31 * BLOCK + 700)			/* of a file that ends in a block */
#define RANGES_MAX 24

/* ------------------------------------------------------------------- checks */

static unsigned number_of(const struct fdmabuf_file *searched)
{
	for (unsigned i = 0; i < SEVERAL; i++)
		if (files[i] == searched)
			return i;
	return SEVERAL;
}

/* Returns what a range reads before the file ends. */
static uint64_t arriving(const struct fdmabuf_range *range)
{
	uint64_t size = model_sizes[number_of(range->file)];

	return range->file_offset < size ? min_u64(range->length, size - range->file_offset) : 0;
}

static unsigned char *memory_of_range(const struct fdmabuf_range *range)
{
	return range->buffer->map + range->buffer_offset;
}

/* Checks that the first @length bytes of a range are those of the file. */
static void check_range_arrived(const struct fdmabuf_range *range, uint64_t length)
{
	CHECK(!memcmp(memory_of_range(range), models[number_of(range->file)] + range->file_offset,
		      length));
}

/* Checks all ranges, and that no others have changed, except in the blocks of ranges if @whole. */
static void check_ranges_arrived(const struct fdmabuf_range *ranges, size_t count, bool whole)
{
	static unsigned char wanted[SEVERAL][BUFFER_SIZE];

	memset(wanted, UNTOUCHED, sizeof(wanted));
	for (size_t i = 0; whole && i < count; i++) {
		uint64_t length = arriving(&ranges[i]);
		uint64_t place = memory_of_range(&ranges[i]) - *memories;
		uint64_t from = align_down(place, BLOCK), to = align_up(place + length, BLOCK);

		if (length)
			memcpy(*wanted + from, *memories + from, to - from);
	}
	for (size_t i = 0; i < count; i++)
		memcpy(*wanted + (memory_of_range(&ranges[i]) - *memories),
		       models[number_of(ranges[i].file)] + ranges[i].file_offset,
		       arriving(&ranges[i]));
	CHECK(!memcmp(wanted, memories, sizeof(wanted)));
}

static uint64_t total_of(const struct fdmabuf_range *ranges, size_t count)
{
	uint64_t total = 0;

	for (size_t i = 0; i < count; i++)
		total += arriving(&ranges[i]);
	return total;
}

/* Reads all ranges and checks them. */
static void check_read(struct fdmabuf_queue *queue, const struct fdmabuf_range *ranges,
		       size_t count, unsigned flags)
{
	CHECK_EQUAL(fdmabuf_read(queue, ranges, count, flags), total_of(ranges, count));
	check_ranges_arrived(ranges, count, flags & FDMABUF_WHOLE_BLOCKS);
	CHECK_EQUAL(simulation.in_flight, 0);
}

/* Checks how far a read that failed says it got. */
static void check_not_overstated(const struct fdmabuf_transfer *transfer,
				 const struct fdmabuf_range *ranges, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct fdmabuf_result result = result_of_range(transfer, i);

		CHECK(result.done <= arriving(&ranges[i]));
		CHECK(result.done == arriving(&ranges[i]) || result.error);
		check_range_arrived(&ranges[i], result.done);
	}
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* --------------------------------------------------------- vectors of ranges */

static void several_files_and_buffers_come_in_one_transfer(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_range ranges[SEVERAL * SEVERAL];
	size_t count = 0;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	for (unsigned i = 0; i < SEVERAL * SEVERAL; i++) {
		unsigned from = i * 7 % 5, at = i / SEVERAL * 10;

		ranges[count++] = range_of(i % SEVERAL, from * BLOCK, (i + i / SEVERAL) % SEVERAL,
					   at * BLOCK, 3 * BLOCK + i);
	}
	check_read(queue, ranges, count, 0);
	CHECK_EQUAL(counters_of_queue(queue).tokens, count);
	fdmabuf_queue_close(queue);
}

static void no_ranges_and_empty_ranges_finish_at_once(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *t;
	struct fdmabuf_range empty;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_DIRECT, 3, 0);
	CHECK_EQUAL(fdmabuf_read(queue, NULL, 0, 0), 0);
	empty = range_of(0, 10, 0, 7777, 0);
	t = start(queue, FDMABUF_READ, &empty, 1, 0);
	CHECK_EQUAL(fdmabuf_transfer_state(t), FDMABUF_FINISHED);
	CHECK_EQUAL(result_of_range(t, 0).done, 0);
	CHECK_EQUAL(result_of_range(t, 0).error, 0);
	fdmabuf_transfer_free(t);
	CHECK_EQUAL(counters_of_queue(queue).requests, 0);
	fdmabuf_queue_close(queue);
}

/* Whole blocks are those of bytes: a range without bytes has none. */
static void empty_range_has_no_whole_blocks(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_range ranges[3];

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	ranges[0] = range_of(0, 10, 0, 10, 0);
	ranges[1] = range_of(1, SIZE, 1, SIZE % BLOCK, 100);
	ranges[2] = range_of(2, 10, 2, BUFFER_SIZE + 9 * BLOCK + 10, 0);
	check_read(queue, ranges, 3, FDMABUF_WHOLE_BLOCKS);
	CHECK_EQUAL(counters_of_queue(queue).requests, 0);
	fdmabuf_queue_close(queue);
}

static void ranges_without_file_buffer_or_array_are_refused(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_range range;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	range = range_of(0, 0, 0, 0, 1);
	range.file = NULL;
	CHECK_EQUAL(fdmabuf_read(queue, &range, 1, 0), -EINVAL);
	range = range_of(0, 0, 0, 0, 1);
	range.buffer = NULL;
	CHECK_EQUAL(fdmabuf_read(queue, &range, 1, 0), -EINVAL);
	CHECK_EQUAL(fdmabuf_read(queue, NULL, 1, 0), -EINVAL);
	/* Nothing is read of it, as of any range past the end. */
	range = range_of(0, UINT64_MAX - 5, 0, 0, 0);
	CHECK_EQUAL(fdmabuf_read(queue, &range, 1, 0), 0);
	/* Of several ranges, one is wrong: nothing is moved. */
	CHECK_EQUAL(fdmabuf_read(queue, (struct fdmabuf_range[]){
		range_of(0, 0, 0, 0, BLOCK), range_of(1, 0, 1, BUFFER_SIZE, BLOCK),
	}, 2, 0), -EFAULT);
	check_ranges_arrived(NULL, 0, false);
	fdmabuf_queue_close(queue);
}

static void duplicate_and_overlapping_ranges_come_right(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_range ranges[6];

	given_several(FULL, SIZE);
	for (unsigned flags = 0; flags <= FDMABUF_WHOLE_BLOCKS; flags++) {
		clear_memories();
		queue = given_queue(FDMABUF_AUTO, 3, 0);
		ranges[0] = range_of(0, 5 * BLOCK, 0, 5 * BLOCK, 9 * BLOCK);
		ranges[1] = range_of(0, 2 * BLOCK, 0, 2 * BLOCK, 9 * BLOCK + 20);
		ranges[2] = range_of(0, 2 * BLOCK, 0, 2 * BLOCK, 9 * BLOCK + 20);
		ranges[3] = range_of(0, 3 * BLOCK + 5, 0, 3 * BLOCK + 5, 100);
		ranges[4] = range_of(0, 2 * BLOCK, 0, 32 * BLOCK, 9 * BLOCK + 20);
		ranges[5] = range_of(0, 4 * BLOCK + 50, 0, 4 * BLOCK + 50, 10 * BLOCK);
		check_read(queue, ranges, 6, flags);
		fdmabuf_queue_close(queue);
	}
}

/* Makes @count ranges of @length bytes, contiguous in file and buffer, in a mixed order. */
static void make_contiguous(struct fdmabuf_range *ranges, size_t count, uint64_t from, uint64_t at,
			    uint64_t length)
{
	for (size_t i = 0; i < count; i++) {
		size_t place = i * 7 % count;

		ranges[i] = range_of(0, from + place * length, 0, at + place * length, length);
	}
}

static void contiguous_ranges_are_joined(void)
{
	static const uint64_t lengths[] = { 100, 512, 1000, BLOCK, BLOCK + 1, 3 * BLOCK };

	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		static struct fdmabuf_range ranges[1000];
		size_t count = 28 * BLOCK / lengths[i] > 1000 ? 1000 : 28 * BLOCK / lengths[i];
		uint64_t bytes;
		struct fdmabuf_queue *queue;

		count -= count % 7 == 0;
		bytes = count * lengths[i];
		given_several(FULL, SIZE);
		queue = given_queue(FDMABUF_AUTO, 3, 0);
		make_contiguous(ranges, count, 2 * BLOCK, 3 * BLOCK, lengths[i]);
		check_read(queue, ranges, count, FDMABUF_WHOLE_BLOCKS);
		/* The file's offset adds one more boundary of a chunk. */
		CHECK(counters_of_queue(queue).requests <= bytes / CHUNK + 2);
		CHECK_EQUAL(counters_of_queue(queue).bytes_copied, 0);
		CHECK(simulation.largest == min_u64(CHUNK, align_up(bytes, BLOCK)) ||
		      bytes < 2 * CHUNK);
		fdmabuf_queue_close(queue);
	}
}

static void whole_blocks_of_small_ranges_are_joined(void)
{
	static const struct { uint64_t distance; unsigned requests; } cases[] = {
		{ 190, 1 }, { 1900, 3 }, { BLOCK, 5 },
	};
	struct fdmabuf_range ranges[20];

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fdmabuf_queue *queue;

		given_several(FULL, SIZE);
		queue = given_queue(FDMABUF_DIRECT, 3, 0);
		for (unsigned j = 0; j < 20; j++) {
			uint64_t from = cases[i].distance * (j * 7 % 20) + 20;

			ranges[j] = range_of(0, from, 0, BLOCK + from, 30);
		}
		check_read(queue, ranges, 20, FDMABUF_WHOLE_BLOCKS);
		CHECK_EQUAL(counters_of_queue(queue).requests, cases[i].requests);
		CHECK_EQUAL(simulation.most_pieces, 1);
		fdmabuf_queue_close(queue);
	}
}

/* A block of the buffer can belong to ranges of two places: neither may overwrite the other. */
static void whole_blocks_spare_other_ranges_in_the_same_block(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_range ranges[3];

	for (unsigned round = 0; round < 20; round++) {
		given_several(FULL, SIZE);
		simulation.random = round + 1;
		queue = given_queue(FDMABUF_AUTO, 3, 0);
		/* Another file; another place of the file; another offset modulo the block. */
		ranges[0] = range_of(0, 0, 0, 0, BLOCK + 100);
		ranges[1] = range_of(1, 100, 0, BLOCK + 100, 200);
		ranges[2] = range_of(0, 4 * BLOCK + 300, 0, BLOCK + 300, 3 * BLOCK);
		check_read(queue, ranges, 3, FDMABUF_WHOLE_BLOCKS);
		clear_memories();
		ranges[0] = range_of(0, 0, 0, 0, 2 * BLOCK + 100);
		ranges[1] = range_of(0, 9, 0, 2 * BLOCK + 100, 200);
		ranges[2] = range_of(2, 4 * BLOCK + 300, 0, 2 * BLOCK + 300, 3 * BLOCK);
		check_read(queue, ranges, 3, FDMABUF_WHOLE_BLOCKS);
		fdmabuf_queue_close(queue);
	}
	queue = given_queue(FDMABUF_DIRECT, 3, 0);
	CHECK_EQUAL(fdmabuf_read(queue, (struct fdmabuf_range[]){
		range_of(0, 0, 0, 0, 100), range_of(1, 200, 0, 200, 100),
	}, 2, FDMABUF_WHOLE_BLOCKS), -EINVAL);
	CHECK(strstr(fdmabuf_error(), "same block of the buffer"));
	/* Of another buffer, or from the same place of the file, is no conflict. */
	clear_memories();
	check_read(queue, (struct fdmabuf_range[]){
		range_of(0, 0, 0, 0, 100), range_of(1, 200, 1, 200, 100),
		range_of(0, 200, 0, 200, 100), range_of(0, 150, 0, 150, 100),
	}, 4, FDMABUF_WHOLE_BLOCKS);
	fdmabuf_queue_close(queue);
}

/* Contiguous in the file, but scattered in the buffer, in blocks of @length. */
static size_t make_scattered(struct fdmabuf_range *ranges, size_t count, uint64_t length)
{
	for (size_t i = 0; i < count; i++)
		ranges[i] = range_of(0, i * length, 0, (count - 1 - i) * length, length);
	return count;
}

static void scattered_memory_takes_one_command(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_range ranges[16];

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_DIRECT, 3, 0);
	check_read(queue, ranges, make_scattered(ranges, 16, BLOCK), 0);
	CHECK_EQUAL(counters_of_queue(queue).requests, 16 * BLOCK / CHUNK);
	CHECK_EQUAL(simulation.vectors, 16 * BLOCK / CHUNK);
	CHECK_EQUAL(simulation.most_pieces, CHUNK / BLOCK);
	CHECK_EQUAL(counters_of_queue(queue).bytes_direct, 16 * BLOCK);
	fdmabuf_queue_close(queue);
}

static void kernel_without_vectors_moves_piece_by_piece(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_range ranges[16];

	given_several(FULL, SIZE);
	simulation.no_vectors = true;
	queue = given_queue(FDMABUF_DIRECT, 3, 0);
	check_read(queue, ranges, make_scattered(ranges, 16, BLOCK), 0);
	CHECK_EQUAL(counters_of_queue(queue).bytes_direct, 16 * BLOCK);
	CHECK(simulation.vectors <= 3);
	simulation.vectors = 0;
	clear_memories();
	check_read(queue, ranges, make_scattered(ranges, 16, BLOCK), 0);
	CHECK_EQUAL(simulation.vectors, 0);
	fdmabuf_queue_close(queue);
}

static void short_vectors_go_on_in_the_middle_of_a_piece(void)
{
	struct fdmabuf_range ranges[8];

	for (unsigned round = 1; round < 30; round++) {
		struct fdmabuf_queue *queue;

		given_several("##.#####..##.######.##.##.######", SIZE);
		simulation.random = round;
		simulation.short_results = true;
		queue = given_queue(FDMABUF_DIRECT, 3, 0);
		check_read(queue, ranges, make_scattered(ranges, 8, 3 * BLOCK), 0);
		CHECK(simulation.vectors > 0);
		fdmabuf_queue_close(queue);
	}
}

static void more_pieces_than_one_command_takes(void)
{
	enum { COUNT = 3 * PIECES_MAX + 5 };
	static struct fdmabuf_range ranges[COUNT];
	unsigned char *large = aligned_alloc(BLOCK, COUNT * BLOCK);
	struct fdmabuf_buffer *large_buffer;
	struct fdmabuf_queue *queue;

	CHECK(large);
	given_several("", 0);
	for (unsigned i = 0; i < COUNT; i++) {
		memset(large, i % 251 + 1, BLOCK);
		CHECK_EQUAL(pwrite(files[0]->handle->fd, large, BLOCK, i * BLOCK), BLOCK);
	}
	large_buffer = make_simulated(large, COUNT * BLOCK, 0);
	simulation.memory = large;
	simulation.memory_size = COUNT * BLOCK;
	for (enum fdmabuf_path path = FDMABUF_DIRECT; path <= FDMABUF_BOUNCE; path++) {
		struct fdmabuf_queue_options options = { .size = sizeof(options), .path = path };

		memset(large, 0, COUNT * BLOCK);
		CHECK_EQUAL(fdmabuf_queue_open(&options, &queue), 0);
		for (unsigned i = 0; i < COUNT; i++) {
			ranges[i] = (struct fdmabuf_range){
				files[0], i * BLOCK, large_buffer, (COUNT - 1 - i) * BLOCK, BLOCK,
			};
		}
		CHECK_EQUAL(fdmabuf_read(queue, ranges, COUNT, 0), COUNT * BLOCK);
		for (unsigned i = 0; i < COUNT * BLOCK; i++)
			CHECK_EQUAL(large[i], (COUNT - 1 - i / BLOCK) % 251 + 1);
		fdmabuf_queue_close(queue);
	}
	CHECK_EQUAL(simulation.most_pieces, PIECES_MAX);
	fdmabuf_buffer_free(large_buffer);
	free(large);
}

static void each_range_has_a_result(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *t;
	struct fdmabuf_range ranges[7];
	static const struct { uint64_t done; enum fdmabuf_path path; enum fdmabuf_reason reason; }
	wanted[] = {
		{ BLOCK, FDMABUF_DIRECT, FDMABUF_REASON_NONE },
		{ 700, FDMABUF_BOUNCE, FDMABUF_REASON_PARTIAL_BLOCK },
		{ 0, FDMABUF_DIRECT, FDMABUF_REASON_NONE },
		{ BLOCK, FDMABUF_BOUNCE, FDMABUF_REASON_UNALIGNED },
		{ 0, FDMABUF_DIRECT, FDMABUF_REASON_NONE },
		{ BLOCK, FDMABUF_BOUNCE, FDMABUF_REASON_NO_DMABUF },
		{ 5, FDMABUF_BOUNCE, FDMABUF_REASON_PARTIAL_BLOCK },
	};

	given_several(FULL, SIZE);
	buffers[2]->dmabuf_fd = -1;
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	ranges[0] = range_of(0, 3 * BLOCK, 0, 8 * BLOCK, BLOCK);
	ranges[1] = range_of(0, 31 * BLOCK, 0, 16 * BLOCK, BLOCK);
	ranges[2] = range_of(0, 40 * BLOCK, 0, 24 * BLOCK, BLOCK);
	ranges[3] = range_of(1, 3 * BLOCK, 1, 8 * BLOCK + 1, BLOCK);
	ranges[4] = range_of(1, 0, 1, 0, 0);
	ranges[5] = range_of(1, 0, 2, 0, BLOCK);
	ranges[6] = range_of(0, BLOCK + 3, 0, BLOCK + 3, 5);
	t = start(queue, FDMABUF_READ, ranges, 7, 0);
	CHECK_EQUAL(fdmabuf_transfer_result(t, 0, &(struct fdmabuf_result){
		.size = sizeof(struct fdmabuf_result) }), -EAGAIN);
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), -EAGAIN);
	wait_for(t);
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), total_of(ranges, 7));
	CHECK_EQUAL(*fdmabuf_transfer_error(t), 0);
	for (size_t i = 0; i < 7; i++) {
		struct fdmabuf_result result = result_of_range(t, i);

		CHECK_EQUAL(result.done, wanted[i].done);
		CHECK_EQUAL(result.error, 0);
		CHECK_EQUAL(result.path, wanted[i].path);
		CHECK_EQUAL(result.reason, wanted[i].reason);
		CHECK_EQUAL(*result.text != '\0', result.reason != FDMABUF_REASON_NONE);
	}
	CHECK_EQUAL(fdmabuf_transfer_result(t, 7, &(struct fdmabuf_result){
		.size = sizeof(struct fdmabuf_result) }), -EINVAL);
	fdmabuf_transfer_free(t);
	fdmabuf_queue_close(queue);
}

/* A range that bounce took over says so, even if its token stays. */
static void refused_request_is_a_reason(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *t;
	struct fdmabuf_range range;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	simulation.refuse_request = 2;
	range = range_of(0, 0, 0, 0, 16 * BLOCK);
	t = start(queue, FDMABUF_READ, &range, 1, 0);
	wait_for(t);
	check_ranges_arrived(&range, 1, false);
	CHECK_EQUAL(result_of_range(t, 0).path, FDMABUF_DIRECT);
	CHECK_EQUAL(result_of_range(t, 0).reason, FDMABUF_REASON_UNSUPPORTED);
	CHECK(*result_of_range(t, 0).text);
	CHECK(counters_of_queue(queue).bytes_copied > 0);
	fdmabuf_transfer_free(t);
	/* The next transfer tries directly again. */
	simulation.refuse_request = 0;
	t = start(queue, FDMABUF_READ, &range, 1, 0);
	wait_for(t);
	CHECK_EQUAL(result_of_range(t, 0).reason, FDMABUF_REASON_NONE);
	fdmabuf_transfer_free(t);
	fdmabuf_queue_close(queue);
}

static void results_after_an_error_are_not_overstated(void)
{
	for (unsigned round = 0; round < 300; round++) {
		struct fdmabuf_range ranges[4];
		struct fdmabuf_transfer *t;
		struct fdmabuf_queue *queue;

		if (round == 0)
			given_several(FULL, SIZE);
		clear_memories();
		simulation.random = round + 1;
		simulation.requests = 0;
		simulation.short_results = round % 2;
		simulation.fail_error = EIO;
		simulation.fail_request = 1 + round % 9;
		queue = given_queue(round % 3 ? FDMABUF_AUTO : FDMABUF_BOUNCE, 3, 0);
		ranges[0] = range_of(0, 3 * BLOCK + 5, 0, 5, 9 * BLOCK);
		ranges[1] = range_of(1, BLOCK, 0, 20 * BLOCK, 9 * BLOCK + 9);
		ranges[2] = range_of(0, 12 * BLOCK + 5, 1, 9, 9 * BLOCK);
		ranges[3] = range_of(0, 12 * BLOCK + 5, 0, 9 * BLOCK + 5, 9 * BLOCK);
		t = start(queue, FDMABUF_READ, ranges, 4, 0);
		wait_for(t);
		CHECK_EQUAL(fdmabuf_transfer_bytes(t), -EIO);
		CHECK(strstr(fdmabuf_transfer_error(t), "offset"));
		check_not_overstated(t, ranges, 4);
		CHECK_EQUAL(simulation.in_flight, 0);
		fdmabuf_transfer_free(t);
		fdmabuf_queue_close(queue);
	}
}

/* Makes ranges that do not meet in the buffers. */
static size_t make_random_ranges(struct fdmabuf_range *ranges, unsigned long long *random)
{
	uint64_t used[SEVERAL] = { 0 };
	size_t count = 0, most = next_random(random) % RANGES_MAX;

	for (unsigned tries = 0; tries < most; tries++) {
		unsigned to = next_random(random) % SEVERAL;
		uint64_t length = next_random(random) % (next_random(random) % 2 ? 8 * BLOCK : 300);
		struct fdmabuf_range range, *last = count ? &ranges[count - 1] : NULL;
		uint64_t block = next_random(random) % 33 * BLOCK;

		if (next_random(random) % 3 == 0)
			length = align_down(length, BLOCK);
		range = range_of(next_random(random) % SEVERAL, block, to, used[to], length);
		if (next_random(random) % 4)
			range.file_offset += next_random(random) % BLOCK;
		if (last && next_random(random) % 2) {	/* contiguous in the file */
			range.file = last->file;
			range.file_offset = last->file_offset + last->length;
		}
		if (last && next_random(random) % 2) {	/* in the same buffer */
			range.buffer = last->buffer;
			to = (range.buffer->map - *memories) / BUFFER_SIZE;
			range.buffer_offset = used[to];
		}
		if (next_random(random) % 3)		/* equal modulo the block */
			range.buffer_offset += (range.file_offset - range.buffer_offset) % BLOCK;
		if (next_random(random) % 3 == 0)
			range.buffer_offset += next_random(random) % 3 * BLOCK;
		if (range.buffer_offset + length > BUFFER_SIZE)
			continue;
		used[to] = range.buffer_offset + length;
		ranges[count++] = range;
	}
	shuffle_ranges(ranges, count, random);
	return count;
}

static void let_anything_happen(unsigned long long *random)
{
	simulation.short_results = next_random(random) % 2;
	simulation.again_percent = next_random(random) % 2 ? 30 : 0;
	simulation.interrupt_percent = next_random(random) % 2 ? 30 : 0;
	simulation.registrations = simulation.requests = simulation.max_in_flight = 0;
	simulation.revoke_request = next_random(random) % 20;
	simulation.revoke_again = next_random(random) % 3 == 0;
	simulation.end_request = next_random(random) % 20;
	simulation.refuse_request = next_random(random) % 2 ? next_random(random) % 20 : 0;
	simulation.no_vectors = next_random(random) % 4 == 0;
	simulation.tokens_max = next_random(random) % 2 ? 1 + next_random(random) % 4 : 0;
	restore_mounts();
}

static void any_vector_of_ranges_comes_right_whatever_happens(void)
{
	static const char *const maps[] = { FULL, "..##..#.######....#####.#.######" };
	struct fdmabuf_range ranges[RANGES_MAX];
	unsigned long long random = 42;

	for (unsigned round = 0; round < 4000; round++) {
		unsigned flags = next_random(&random) % 2 ? FDMABUF_WHOLE_BLOCKS : 0;
		unsigned depth = 1 + next_random(&random) % 5;
		struct fdmabuf_queue *queue;

		if (round % 2000 == 0)
			given_several(maps[round / 2000], SIZE);
		clear_memories();
		let_anything_happen(&random);
		queue = given_queue(next_random(&random) % 5 ? FDMABUF_AUTO : FDMABUF_BOUNCE, depth,
				    1 + next_random(&random) % 5);
		for (unsigned i = 0; i <= round % 2; i++) {
			size_t count = make_random_ranges(ranges, &random);

			clear_memories();
			check_read(queue, ranges, count, flags);
		}
		CHECK(simulation.max_in_flight <= depth);
		fdmabuf_queue_close(queue);
		CHECK_EQUAL(simulation.tokens, 0);
	}
}

/*
 * Several transfers at a time, of which some are cancelled. They read to the same buffers, so only
 * the numbers of bytes can be checked.
 */
static void any_number_of_transfers_comes_right_whatever_happens(void)
{
	enum { TRANSFERS = 5 };
	static struct fdmabuf_range ranges[TRANSFERS][RANGES_MAX];
	unsigned long long random = 4711;

	given_several(FULL, SIZE);
	for (unsigned round = 0; round < 1500; round++) {
		struct fdmabuf_queue *queue;
		struct fdmabuf_transfer *t[TRANSFERS];
		size_t count[TRANSFERS];
		bool cancels[TRANSFERS];

		let_anything_happen(&random);
		queue = given_queue(FDMABUF_AUTO, 1 + next_random(&random) % 5,
				    1 + next_random(&random) % 5);
		for (unsigned i = 0; i < TRANSFERS; i++) {
			count[i] = make_random_ranges(ranges[i], &random);
			cancels[i] = next_random(&random) % 4 == 0;
			t[i] = start(queue, FDMABUF_READ, ranges[i], count[i], 0);
			if (next_random(&random) % 2)
				fdmabuf_queue_wait(queue, 0);
		}
		for (unsigned i = 0; i < TRANSFERS; i++) {
			if (cancels[i])
				CHECK_EQUAL(fdmabuf_transfer_cancel(t[i], round % 2 - 1), 0);
			else if (next_random(&random) % 2)
				wait_for(t[i]);
		}
		while (fdmabuf_queue_wait(queue, -1) < TRANSFERS)
			for (unsigned i = 0; i < TRANSFERS; i++)
				if (fdmabuf_transfer_state(t[i]) != FDMABUF_FINISHED)
					wait_for(t[i]);
		CHECK_EQUAL(simulation.in_flight, 0);
		for (unsigned i = 0; i < TRANSFERS; i++) {
			int64_t bytes = fdmabuf_transfer_bytes(t[i]);

			CHECK(bytes == (int64_t)total_of(ranges[i], count[i]) ||
			      (cancels[i] && bytes == -ECANCELED));
			fdmabuf_transfer_free(t[i]);
		}
		fdmabuf_queue_close(queue);
	}
}

static int fail_flush(struct fdmabuf_buffer *unused)
{
	(void)unused;
	return fail(EIO, "the flush failed");
}

/* What is not flushed has not arrived, also if another error has ended the transfer. */
static void failed_flush_is_not_overstated(void)
{
	for (unsigned other_error = 0; other_error < 2; other_error++) {
		struct fdmabuf_range ranges[3];
		struct fdmabuf_queue *queue;
		struct fdmabuf_transfer *t;
		struct exporter flushing;

		given_several(FULL, SIZE);
		flushing = *buffers[0]->exporter;
		flushing.flush = fail_flush;
		buffers[0]->exporter = &flushing;
		queue = given_queue(FDMABUF_AUTO, 1, 0);
		ranges[0] = range_of(0, 0, 0, 0, 3 * BLOCK);
		ranges[1] = range_of(0, 0, 1, 0, 3 * BLOCK);
		ranges[2] = range_of(1, 1, 0, 3 * BLOCK, 3 * BLOCK);	/* copied: no flush */
		simulation.fail_request = other_error ? 3 : 0;
		simulation.fail_error = other_error ? ENODEV : 0;
		t = start(queue, FDMABUF_READ, ranges, 3, 0);
		wait_for(t);
		CHECK_EQUAL(fdmabuf_transfer_bytes(t), other_error ? -ENODEV : -EIO);
		CHECK_EQUAL(result_of_range(t, 0).done, 0);
		CHECK(result_of_range(t, 0).error);
		check_not_overstated(t, ranges, 3);
		fdmabuf_transfer_free(t);
		fdmabuf_queue_close(queue);
		fdmabuf_buffer_free(buffers[0]);
		buffers[0] = fdmabuf_buffer_ref(buffers[1]);
	}
}

/* ------------------------------------------------------------------- tokens */

static void read_block(struct fdmabuf_queue *queue, unsigned from, unsigned to)
{
	struct fdmabuf_range range = range_of(from, 0, to, 0, BLOCK);

	CHECK_EQUAL(fdmabuf_read(queue, &range, 1, 0), BLOCK);
}

static void tokens_are_kept(void)
{
	struct fdmabuf_queue *queue;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_DIRECT, 3, 0);
	for (unsigned i = 0; i < 5 * SEVERAL * SEVERAL; i++)
		read_block(queue, i % SEVERAL, i / SEVERAL % SEVERAL);
	CHECK_EQUAL(counters_of_queue(queue).tokens, SEVERAL * SEVERAL);
	CHECK_EQUAL(counters_of_queue(queue).tokens_kept, SEVERAL * SEVERAL);
	CHECK_EQUAL(simulation.tokens, SEVERAL * SEVERAL);
	fdmabuf_queue_close(queue);
	CHECK_EQUAL(simulation.tokens, 0);
}

static void least_recently_used_token_is_given_up(void)
{
	struct fdmabuf_queue *queue;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_DIRECT, 3, 2);
	read_block(queue, 0, 0);
	read_block(queue, 1, 0);
	read_block(queue, 0, 0);
	CHECK_EQUAL(counters_of_queue(queue).tokens, 2);
	read_block(queue, 2, 0);	/* gives up that of file 1 */
	read_block(queue, 0, 0);
	CHECK_EQUAL(counters_of_queue(queue).tokens, 3);
	read_block(queue, 1, 0);	/* gives up that of file 2 */
	read_block(queue, 0, 0);
	CHECK_EQUAL(counters_of_queue(queue).tokens, 4);
	CHECK_EQUAL(simulation.most_tokens, 2);
	CHECK_EQUAL(counters_of_queue(queue).tokens_kept, 2);
	fdmabuf_queue_close(queue);
}

static void few_tokens_serve_many_pairs_of_one_transfer(void)
{
	for (unsigned tokens = 1; tokens <= 4; tokens++) {
		struct fdmabuf_range ranges[SEVERAL * SEVERAL];
		struct fdmabuf_queue *queue;

		given_several(FULL, SIZE);
		queue = given_queue(FDMABUF_DIRECT, 4, tokens);
		for (unsigned i = 0; i < SEVERAL * SEVERAL; i++)
			ranges[i] = range_of(i % SEVERAL, 2 * BLOCK, i / SEVERAL,
					     i % SEVERAL * 20 * BLOCK, 19 * BLOCK);
		check_read(queue, ranges, SEVERAL * SEVERAL, 0);
		CHECK_EQUAL(simulation.most_tokens, tokens);
		CHECK_EQUAL(counters_of_queue(queue).bytes_copied, 0);
		CHECK(counters_of_queue(queue).tokens <= 2 * SEVERAL * SEVERAL);
		fdmabuf_queue_close(queue);
	}
}

static void two_transfers_share_one_token(void)
{
	struct fdmabuf_range first, second;
	struct fdmabuf_transfer *a, *b;
	struct fdmabuf_queue *queue;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_DIRECT, 4, 1);
	first = range_of(0, 0, 0, 0, 31 * BLOCK);
	second = range_of(1, 0, 1, 0, 31 * BLOCK);
	a = start(queue, FDMABUF_READ, &first, 1, 0);
	b = start(queue, FDMABUF_READ, &second, 1, 0);
	wait_for(b);
	wait_for(a);
	check_ranges_arrived((struct fdmabuf_range[]){ first, second }, 2, false);
	CHECK_EQUAL(simulation.most_tokens, 1);
	fdmabuf_transfer_free(a);
	fdmabuf_transfer_free(b);
	fdmabuf_queue_close(queue);
}

static void limit_of_the_broker_gives_up_idle_tokens(void)
{
	struct fdmabuf_range ranges[SEVERAL];
	struct fdmabuf_queue *queue;

	given_several(FULL, SIZE);
	simulation.tokens_max = 2;
	queue = given_queue(FDMABUF_DIRECT, 4, 0);
	for (unsigned i = 0; i < 2 * SEVERAL; i++)
		read_block(queue, i % SEVERAL, 0);
	CHECK_EQUAL(counters_of_queue(queue).tokens, 2 * SEVERAL);
	CHECK_EQUAL(counters_of_queue(queue).tokens_kept, 2);
	/* The kept ones are those of files 1 and 2: 2 is used least recently from here on. */
	read_block(queue, 1, 0);
	read_block(queue, 0, 0);
	read_block(queue, 1, 0);
	CHECK_EQUAL(counters_of_queue(queue).tokens, 2 * SEVERAL + 1);
	for (unsigned i = 0; i < SEVERAL; i++)
		ranges[i] = range_of(i, 0, i, 0, 20 * BLOCK);
	clear_memories();
	check_read(queue, ranges, SEVERAL, 0);
	CHECK_EQUAL(counters_of_queue(queue).bytes_copied, 0);
	fdmabuf_queue_close(queue);
}

static void limit_of_the_broker_without_idle_tokens_means_bounce(void)
{
	struct fdmabuf_result result = { .size = sizeof(result) };
	struct fdmabuf_queue *first, *second;
	struct fdmabuf_range range;

	given_several(FULL, SIZE);
	simulation.tokens_max = 1;
	first = given_queue(FDMABUF_DIRECT, 4, 0);
	read_block(first, 0, 0);
	second = given_queue(FDMABUF_AUTO, 4, 0);
	read_block(second, 1, 1);
	CHECK_EQUAL(counters_of_queue(second).bytes_copied, BLOCK);
	CHECK_EQUAL(counters_of_queue(second).tokens_kept, 0);
	range = range_of(1, 0, 1, 0, BLOCK);
	CHECK_EQUAL(fdmabuf_queue_check(second, FDMABUF_READ, &range, 0, &result), 0);
	CHECK_EQUAL(result.path, FDMABUF_BOUNCE);
	CHECK_EQUAL(result.reason, FDMABUF_REASON_REFUSED);
	fdmabuf_queue_close(second);
	fdmabuf_queue_close(first);
}

static void token_ends_with_its_file_or_buffer(void)
{
	struct fdmabuf_queue *queue;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_DIRECT, 4, 0);
	for (unsigned i = 0; i < SEVERAL * SEVERAL; i++)
		read_block(queue, i % SEVERAL, i / SEVERAL);
	CHECK_EQUAL(simulation.tokens, 9);
	fdmabuf_file_close(fdmabuf_file_ref(files[0]));
	CHECK_EQUAL(simulation.tokens, 9);
	fdmabuf_file_close(files[0]);
	files[0] = fdmabuf_file_ref(files[1]);
	CHECK_EQUAL(simulation.tokens, 6);
	CHECK_EQUAL(counters_of_queue(queue).tokens_kept, 6);
	fdmabuf_buffer_free(buffers[2]);
	buffers[2] = fdmabuf_buffer_ref(buffers[1]);
	CHECK_EQUAL(simulation.tokens, 4);
	read_block(queue, 2, 1);
	CHECK_EQUAL(counters_of_queue(queue).tokens, 9);
	fdmabuf_queue_close(queue);
}

static void *close_file(void *closed)
{
	fdmabuf_file_close(closed);
	return NULL;
}

static void token_ends_with_its_file_in_another_thread(void)
{
	struct fdmabuf_queue *queue;
	pthread_t thread;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_DIRECT, 4, 0);
	for (unsigned i = 0; i < SEVERAL; i++)
		read_block(queue, i, 0);
	CHECK(!pthread_create(&thread, NULL, close_file, files[0]));
	for (unsigned i = 0; i < 10000; i++)
		CHECK(counters_of_queue(queue).tokens_kept >= 2);
	read_block(queue, 1, 0);
	CHECK(!pthread_join(thread, NULL));
	CHECK_EQUAL(simulation.tokens, 2);
	CHECK_EQUAL(counters_of_queue(queue).tokens_kept, 2);
	files[0] = fdmabuf_file_ref(files[1]);
	fdmabuf_queue_close(queue);
}

static void closed_file_stays_until_the_transfer_has_finished(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *t;
	struct fdmabuf_range range;
	int fd;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_DIRECT, 1, 0);
	range = range_of(0, 0, 0, 0, 31 * BLOCK);
	fd = files[0]->handle->fd;
	t = start(queue, FDMABUF_READ, &range, 1, 0);
	fdmabuf_file_close(files[0]);
	fdmabuf_buffer_free(buffers[0]);
	CHECK_EQUAL(simulation.tokens, 1);
	CHECK(is_open(fd));
	wait_for(t);
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), 31 * BLOCK);
	CHECK(!memcmp(memories[0], models[0], 31 * BLOCK));
	CHECK_EQUAL(simulation.tokens, 0);
	CHECK(!is_open(fd));
	CHECK_EQUAL(result_of_range(t, 0).done, 31 * BLOCK);
	fdmabuf_transfer_free(t);
	fdmabuf_queue_close(queue);
	files[0] = fdmabuf_file_ref(files[1]);
	buffers[0] = fdmabuf_buffer_ref(buffers[1]);
}

/* A transfer has its own request for a new token, whatever happened to the token before. */
static void token_that_ended_before_is_made_anew(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_range range;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_DIRECT, 3, 0);
	read_block(queue, 0, 0);
	/* As a transfer leaves it that is cancelled after its token has ended. */
	queue->pairs.pairs->token_has_ended = true;
	simulation.revoke_request = 3;
	range = range_of(0, 0, 0, 0, 31 * BLOCK);
	check_read(queue, &range, 1, 0);
	CHECK_EQUAL(counters_of_queue(queue).tokens, 3);
	fdmabuf_queue_close(queue);
}

static void many_pairs_do_not_add_up(void)
{
	struct fdmabuf_queue *queue;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_BOUNCE, 4, 2);
	for (unsigned i = 0; i < SEVERAL * SEVERAL; i++)
		read_block(queue, i % SEVERAL, i / SEVERAL);
	CHECK_EQUAL(queue->pairs.pair_count, 2);
	fdmabuf_queue_close(queue);
}

/* ------------------------------------------------------------------- cancel */

static void transfer_of_a_hanging_device_is_cancelled(void)
{
	for (int wait = -1; wait <= 0; wait++) {
		struct fdmabuf_queue *queue;
		struct fdmabuf_transfer *t;
		struct fdmabuf_range range;
		unsigned requests;

		given_several(FULL, SIZE);
		queue = given_queue(FDMABUF_AUTO, 3, 0);
		simulation.hangs = true;
		range = range_of(0, 0, 0, 0, 31 * BLOCK);
		t = start(queue, FDMABUF_READ, &range, 1, 0);
		CHECK_EQUAL(fdmabuf_transfer_state(t), FDMABUF_RUNNING);
		CHECK_EQUAL(fdmabuf_transfer_wait(t, 20), -ETIMEDOUT);
		requests = simulation.requests;
		CHECK_EQUAL(fdmabuf_transfer_cancel(t, wait), 0);
		if (!wait) {
			CHECK_EQUAL(fdmabuf_transfer_state(t), FDMABUF_CANCELLING);
			CHECK_EQUAL(fdmabuf_transfer_bytes(t), -EAGAIN);
			wait_for(t);
		}
		CHECK_EQUAL(fdmabuf_transfer_state(t), FDMABUF_FINISHED);
		CHECK_EQUAL(simulation.in_flight, 0);
		CHECK_EQUAL(simulation.requests, requests);
		CHECK_EQUAL(simulation.cancelled, 3);
		CHECK_EQUAL(fdmabuf_transfer_bytes(t), -ECANCELED);
		CHECK_EQUAL(result_of_range(t, 0).error, -ECANCELED);
		check_not_overstated(t, &range, 1);
		CHECK_EQUAL(fdmabuf_transfer_cancel(t, -1), 0);
		fdmabuf_transfer_free(t);
		/* The queue is as good as before. */
		simulation.hangs = false;
		clear_memories();
		check_read(queue, &range, 1, 0);
		fdmabuf_queue_close(queue);
	}
}

static void other_transfers_go_on_beside_a_hanging_one(void)
{
	struct fdmabuf_range hanging, other;
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *t;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	simulation.hanging_fd = files[0]->handle->fd;
	hanging = range_of(0, 0, 0, 0, 2 * CHUNK);
	other = range_of(1, 0, 1, 0, 31 * BLOCK);
	t = start(queue, FDMABUF_READ, &hanging, 1, 0);
	CHECK_EQUAL(fdmabuf_read(queue, &other, 1, 0), 31 * BLOCK);
	CHECK_EQUAL(fdmabuf_transfer_state(t), FDMABUF_RUNNING);
	CHECK_EQUAL(fdmabuf_transfer_cancel(t, 0), 0);
	CHECK_EQUAL(fdmabuf_read(queue, &other, 1, 0), 31 * BLOCK);
	fdmabuf_transfer_free(t);
	check_range_arrived(&other, 31 * BLOCK);
	fdmabuf_queue_close(queue);
}

static void close_cancels_what_has_not_finished(void)
{
	struct fdmabuf_transfer *a, *b, *c;
	struct fdmabuf_range range;
	struct fdmabuf_queue *queue;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	range = range_of(0, 0, 0, 0, 31 * BLOCK);
	a = start(queue, FDMABUF_READ, &range, 1, 0);
	wait_for(a);
	simulation.hangs = true;
	b = start(queue, FDMABUF_READ, &range, 1, 0);
	c = start(queue, FDMABUF_READ, &range, 1, 0);
	simulation.waits = 0;
	fdmabuf_queue_close(queue);
	CHECK(simulation.waits < 20);
	CHECK_EQUAL(simulation.in_flight, 0);
	CHECK_EQUAL(simulation.tokens, 0);
	CHECK_EQUAL(fdmabuf_transfer_bytes(a), 31 * BLOCK);
	CHECK_EQUAL(fdmabuf_transfer_bytes(b), -ECANCELED);
	CHECK_EQUAL(fdmabuf_transfer_bytes(c), -ECANCELED);
	CHECK_EQUAL(fdmabuf_transfer_wait(c, -1), 0);
	CHECK_EQUAL(result_of_range(c, 0).done, 0);
	fdmabuf_transfer_free(c);
	fdmabuf_transfer_free(a);
	fdmabuf_transfer_free(b);
}

static void free_cancels_a_transfer(void)
{
	struct fdmabuf_transfer *a, *b;
	struct fdmabuf_range range;
	struct fdmabuf_queue *queue;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	simulation.hangs = true;
	range = range_of(0, 0, 0, 0, 31 * BLOCK);
	a = start(queue, FDMABUF_READ, &range, 1, 0);
	b = start(queue, FDMABUF_READ, &range, 1, 0);
	fdmabuf_transfer_free(a);
	CHECK_EQUAL(fdmabuf_queue_poll(queue), 0);
	simulation.hangs = false;
	CHECK_EQUAL(fdmabuf_queue_wait(queue, -1), 1);
	CHECK(fdmabuf_queue_next(queue) == b);
	CHECK(!fdmabuf_queue_next(queue));
	fdmabuf_queue_close(queue);
	CHECK_EQUAL(fdmabuf_transfer_bytes(b), 31 * BLOCK);
	fdmabuf_transfer_free(b);
	fdmabuf_transfer_free(NULL);
}

struct progress_seen {
	unsigned calls, cancel_at;
	enum fdmabuf_state last_state;
	struct fdmabuf_transfer *transfer;
	uint64_t done, total;
};

static int see_progress(void *data, const struct fdmabuf_progress *progress)
{
	struct progress_seen *seen = data;

	CHECK_EQUAL(progress->size, sizeof(*progress));
	CHECK(progress->done >= seen->done && progress->done <= progress->total);
	CHECK(progress->in_flight <= simulation.in_flight);
	seen->transfer = progress->transfer;
	seen->last_state = progress->state;
	seen->done = progress->done;
	seen->total = progress->total;
	return ++seen->calls >= seen->cancel_at && seen->cancel_at;
}

static struct fdmabuf_transfer *start_with_progress(struct fdmabuf_queue *queue,
						    const struct fdmabuf_range *range,
						    struct progress_seen *seen)
{
	const struct fdmabuf_operation operation = {
		.size = sizeof(operation),
		.ranges = range,
		.count = 1,
		.progress = see_progress,
		.data = seen,
	};
	struct fdmabuf_transfer *t = NULL;

	CHECK_EQUAL(fdmabuf_submit(queue, &operation, &t), 0);
	CHECK(fdmabuf_transfer_data(t) == seen);
	return t;
}

static void progress_is_told_while_nothing_completes(void)
{
	struct progress_seen seen = { 0 };
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *t;
	struct fdmabuf_range range;
	int64_t begin;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	simulation.hangs = true;
	range = range_of(0, 0, 0, 0, 31 * BLOCK);
	t = start_with_progress(queue, &range, &seen);
	begin = monotonic_milliseconds();
	CHECK_EQUAL(fdmabuf_transfer_wait(t, 350), -ETIMEDOUT);
	CHECK(monotonic_milliseconds() - begin >= 349);
	CHECK(seen.calls >= 3 && seen.calls <= 6);
	CHECK(seen.transfer == t);
	CHECK_EQUAL(seen.total, 31 * BLOCK);
	CHECK_EQUAL(seen.last_state, FDMABUF_RUNNING);
	seen.cancel_at = 1;
	simulation.waits = 0;
	wait_for(t);
	CHECK(simulation.waits < 10);
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), -ECANCELED);
	fdmabuf_transfer_free(t);
	fdmabuf_queue_close(queue);
}

/* ------------------------------------------------- several transfers, waiting */

static void small_transfer_is_not_held_up_by_a_large_one(void)
{
	struct fdmabuf_range large, small;
	struct fdmabuf_transfer *a, *b;
	struct fdmabuf_queue *queue;

	for (unsigned round = 1; round < 30; round++) {
		given_several(FULL, SIZE);
		simulation.random = round;
		queue = given_queue(FDMABUF_DIRECT, 2, 0);
		large = range_of(0, 0, 0, 0, 28 * BLOCK);
		small = range_of(1, 0, 1, 0, CHUNK);
		a = start(queue, FDMABUF_READ, &large, 1, 0);
		b = start(queue, FDMABUF_READ, &small, 1, 0);
		while (!b->requests && b->is_active)
			CHECK(fdmabuf_queue_wait(queue, 0) <= 1);
		/* Two of the large one's 7 requests were sent before; the next turn is its, too. */
		CHECK(simulation.requests <= 5);
		CHECK(a->is_active);
		wait_for(a);
		wait_for(b);
		fdmabuf_transfer_free(a);
		fdmabuf_transfer_free(b);
		fdmabuf_queue_close(queue);
	}
}

static void all_transfers_get_turns(void)
{
	struct fdmabuf_transfer *t[SEVERAL];
	struct fdmabuf_queue *queue;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_DIRECT, 1, 0);
	for (unsigned i = 0; i < SEVERAL; i++) {
		struct fdmabuf_range range = range_of(i, 0, i, 0, 28 * BLOCK);

		t[i] = start(queue, FDMABUF_READ, &range, 1, 0);
	}
	for (unsigned i = 0; i < 6; i++) {
		uint64_t least = UINT64_MAX, most = 0;

		CHECK_EQUAL(fdmabuf_queue_wait(queue, 0), 0);
		for (unsigned j = 0; j < SEVERAL; j++) {
			least = min_u64(least, t[j]->moved);
			most = max_u64(most, t[j]->moved);
		}
		CHECK(most - least <= 2 * CHUNK);
	}
	for (unsigned i = 0; i < SEVERAL; i++)
		fdmabuf_transfer_free(t[i]);
	fdmabuf_queue_close(queue);
}

/* A transfer that has finished, and that nobody has asked for, must not make others spin. */
static void waiting_beside_a_finished_transfer_does_not_spin(void)
{
	struct fdmabuf_range first, second;
	struct fdmabuf_transfer *a, *b;
	struct fdmabuf_queue *queue;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	first = range_of(0, 0, 0, 0, BLOCK);
	second = range_of(1, 0, 1, 0, BLOCK);
	a = start(queue, FDMABUF_READ, &first, 1, 0);
	wait_for(a);
	simulation.hangs = true;
	b = start(queue, FDMABUF_READ, &second, 1, 0);
	simulation.waits = 0;
	CHECK_EQUAL(fdmabuf_transfer_wait(b, 100), -ETIMEDOUT);
	CHECK(simulation.waits <= 5);
	CHECK_EQUAL(fdmabuf_queue_wait(queue, -1), 1);
	fdmabuf_transfer_free(b);
	fdmabuf_transfer_free(a);
	fdmabuf_queue_close(queue);
}

static void wait_times_out(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *t;
	struct fdmabuf_range range;
	int64_t begin = monotonic_milliseconds();

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	CHECK_EQUAL(fdmabuf_queue_wait(queue, -1), 0);	/* nothing to wait for */
	simulation.hangs = true;
	range = range_of(0, 0, 0, 0, BLOCK);
	t = start(queue, FDMABUF_READ, &range, 1, 0);
	CHECK_EQUAL(fdmabuf_transfer_wait(t, 0), -ETIMEDOUT);
	CHECK_EQUAL(fdmabuf_queue_wait(queue, 0), 0);
	CHECK_EQUAL(fdmabuf_queue_poll(queue), 0);
	CHECK_EQUAL(fdmabuf_transfer_wait(t, 60), -ETIMEDOUT);
	CHECK(strstr(fdmabuf_error(), "not finished"));
	CHECK_EQUAL(fdmabuf_queue_wait(queue, 60), 0);
	CHECK(monotonic_milliseconds() - begin >= 119);
	CHECK_EQUAL(fdmabuf_transfer_cancel(t, 0), 0);
	CHECK_EQUAL(fdmabuf_queue_wait(queue, -1), 1);
	CHECK_EQUAL(fdmabuf_queue_wait(queue, -1), 1);
	CHECK(fdmabuf_queue_next(queue) == t);
	CHECK_EQUAL(fdmabuf_queue_wait(queue, -1), 0);
	fdmabuf_transfer_free(t);
	fdmabuf_queue_close(queue);
}

static void next_returns_each_transfer_once(void)
{
	enum { TRANSFERS = 7 };
	struct fdmabuf_transfer *t;
	struct fdmabuf_queue *queue;
	bool was_returned[TRANSFERS] = { false };
	struct fdmabuf_range range;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	range = range_of(0, 0, 0, 0, 9 * BLOCK);
	for (unsigned i = 0; i < TRANSFERS; i++) {
		const struct fdmabuf_operation operation = {
			.size = sizeof(operation), .ranges = &range, .count = 1,
			.data = &was_returned[i],
		};

		CHECK_EQUAL(fdmabuf_submit(queue, &operation, &t), 0);
	}
	for (unsigned i = 0; i < TRANSFERS; i++) {
		CHECK(fdmabuf_queue_wait(queue, -1) > 0);
		t = fdmabuf_queue_next(queue);
		CHECK(t && !*(bool *)fdmabuf_transfer_data(t));
		*(bool *)fdmabuf_transfer_data(t) = true;
		CHECK_EQUAL(fdmabuf_transfer_bytes(t), 9 * BLOCK);
		fdmabuf_transfer_free(t);
	}
	CHECK(!fdmabuf_queue_next(queue));
	CHECK_EQUAL(fdmabuf_queue_poll(queue), 0);
	fdmabuf_queue_close(queue);
}

static bool is_readable(int fd, int timeout)
{
	return poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, timeout) > 0;
}

static void event_loop_sees_the_end_and_nothing_else(void)
{
	struct fdmabuf_range range;
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *t;
	unsigned polls = 0;
	int fd;

	for (unsigned no_ring = 0; no_ring < 2; no_ring++) {
		given_several(FULL, SIZE);
		simulation.completes_alone = true;
		simulation.no_ring = no_ring;
		queue = given_queue(FDMABUF_AUTO, 3, 0);
		fd = fdmabuf_queue_fd(queue);
		CHECK(fd >= 0);
		CHECK_EQUAL(fdmabuf_queue_fd(queue), fd);
		CHECK(!is_readable(fd, 0));
		range = range_of(0, 0, 0, 0, 31 * BLOCK);
		t = start(queue, FDMABUF_READ, &range, 1, 0);
		while (!fdmabuf_queue_poll(queue)) {
			CHECK(++polls < 100);
			CHECK(is_readable(fd, 1000));
		}
		CHECK(is_readable(fd, 0));
		CHECK(fdmabuf_queue_next(queue) == t);
		CHECK_EQUAL(fdmabuf_queue_poll(queue), 0);
		CHECK(!is_readable(fd, 50));
		fdmabuf_transfer_free(t);
		/* What has finished before anybody looks is seen as well. */
		t = start(queue, FDMABUF_READ, NULL, 0, 0);
		CHECK(is_readable(fd, 1000));
		fdmabuf_transfer_free(t);
		CHECK(!is_readable(fd, 50));
		fdmabuf_queue_close(queue);
	}
}

static void event_loop_ends_a_cancelled_transfer(void)
{
	for (unsigned by_progress = 0; by_progress < 2; by_progress++) {
		struct progress_seen seen = { .cancel_at = by_progress };
		struct fdmabuf_range range;
		struct fdmabuf_queue *queue;
		struct fdmabuf_transfer *t;
		int fd;

		given_several(FULL, SIZE);
		simulation.completes_alone = true;
		simulation.hangs = true;
		queue = given_queue(FDMABUF_AUTO, 3, 0);
		fd = fdmabuf_queue_fd(queue);
		range = range_of(0, 0, 0, 0, 31 * BLOCK);
		t = start_with_progress(queue, &range, &seen);
		CHECK(!is_readable(fd, 20));
		if (!by_progress)
			CHECK_EQUAL(fdmabuf_transfer_cancel(t, 0), 0);
		for (unsigned polls = 0; !fdmabuf_queue_poll(queue); polls++) {
			CHECK(polls < 10);
			CHECK(is_readable(fd, 1000));
		}
		CHECK(fdmabuf_queue_next(queue) == t);
		CHECK_EQUAL(fdmabuf_queue_poll(queue), 0);
		CHECK(!is_readable(fd, 50));	/* the completions of the cancels are taken */
		fdmabuf_transfer_free(t);
		fdmabuf_queue_close(queue);
	}
}

static void event_loop_waits_for_a_mount(void)
{
	struct fdmabuf_range range;
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *t;
	unsigned polls = 0;
	int fd;

	given_several(FULL, SIZE);
	simulation.completes_alone = true;
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	fd = fdmabuf_queue_fd(queue);
	CHECK(!rename(files[0]->real_path, other_name));
	simulation.end_request = 3;
	range = range_of(0, 0, 0, 0, 31 * BLOCK);
	t = start(queue, FDMABUF_READ, &range, 1, 0);
	for (unsigned i = 0; fdmabuf_transfer_state(t) != FDMABUF_FINISHED; i++) {
		CHECK(is_readable(fd, 1000));
		fdmabuf_queue_poll(queue);
		if (++polls == 6) {
			CHECK_EQUAL(fdmabuf_transfer_state(t), FDMABUF_WAITING);
			CHECK(!rename(other_name, files[0]->real_path));
		}
		CHECK(polls < 30);
	}
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), 31 * BLOCK);
	fdmabuf_transfer_free(t);
	fdmabuf_queue_close(queue);
}

/* ------------------------------------------------------------ servers that end */

static void other_files_go_on_while_one_waits_for_its_mount(void)
{
	struct fdmabuf_range lost, other;
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *t, *second;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	CHECK(!rename(files[0]->real_path, other_name));
	simulation.end_request = 3;
	lost = range_of(0, 0, 0, 0, 31 * BLOCK);
	other = range_of(1, 0, 1, 0, 31 * BLOCK);
	t = start(queue, FDMABUF_READ, &lost, 1, 0);
	CHECK_EQUAL(fdmabuf_transfer_wait(t, 10), -ETIMEDOUT);
	second = start(queue, FDMABUF_READ, &lost, 1, 0);
	CHECK_EQUAL(fdmabuf_transfer_state(t), FDMABUF_WAITING);
	CHECK_EQUAL(fdmabuf_transfer_state(second), FDMABUF_WAITING);
	for (unsigned i = 0; i < 5; i++)
		CHECK_EQUAL(fdmabuf_read(queue, &other, 1, 0), 31 * BLOCK);
	CHECK_EQUAL(fdmabuf_transfer_state(t), FDMABUF_WAITING);
	CHECK(!rename(other_name, files[0]->real_path));
	wait_for(t);
	wait_for(second);
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), 31 * BLOCK);
	CHECK_EQUAL(fdmabuf_transfer_bytes(second), 31 * BLOCK);
	check_ranges_arrived((struct fdmabuf_range[]){ lost, other }, 2, false);
	fdmabuf_transfer_free(t);
	fdmabuf_transfer_free(second);
	fdmabuf_queue_close(queue);
}

/* One file of the transfer waits for its mount, the other one's device hangs: nobody spins. */
static void cancelled_transfer_that_waited_for_a_mount_does_not_spin(void)
{
	struct fdmabuf_range ranges[2];
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *t;
	unsigned lost;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_AUTO, 8, 0);
	/* The file whose requests come last. */
	lost = (uintptr_t)files[0] < (uintptr_t)files[1];
	CHECK(!rename(files[lost]->real_path, other_name));
	ranges[0] = range_of(lost, 0, 0, 0, 3 * CHUNK);
	ranges[1] = range_of(1 - lost, 0, 1, 0, 3 * CHUNK);
	simulate_end(files[lost]->handle->fd);
	simulation.hanging_fd = files[1 - lost]->handle->fd;
	t = start(queue, FDMABUF_READ, ranges, 2, 0);
	CHECK_EQUAL(fdmabuf_transfer_wait(t, 50), -ETIMEDOUT);
	CHECK_EQUAL(fdmabuf_transfer_state(t), FDMABUF_WAITING);
	/* As a device that does not let go. */
	queue->depth = 0;
	CHECK_EQUAL(fdmabuf_transfer_cancel(t, 0), 0);
	queue->depth = 8;
	CHECK_EQUAL(fdmabuf_transfer_state(t), FDMABUF_CANCELLING);
	CHECK_EQUAL(fdmabuf_transfer_wait(t, 150), -ETIMEDOUT);
	simulation.waits = 0;
	CHECK_EQUAL(fdmabuf_transfer_wait(t, 100), -ETIMEDOUT);
	CHECK(simulation.waits <= 5);
	simulation.hanging_fd = 0;
	wait_for(t);
	CHECK_EQUAL(result_of_range(t, 0).done, 0);
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), -ECANCELED);
	check_not_overstated(t, ranges, 2);
	fdmabuf_transfer_free(t);
	CHECK(!rename(other_name, files[lost]->real_path));
	fdmabuf_queue_close(queue);
}

static const char *changed_name;

/* Writes to the file, and sets its time of modification back, as rsync(1) does. */
static void change_and_set_time_back(void)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT } };
	struct stat status;
	int fd = open(changed_name, O_RDWR);

	CHECK(fd >= 0 && !fstat(fd, &status));
	times[1] = status.st_mtim;
	CHECK_EQUAL(pwrite(fd, "new", 3, 20 * BLOCK), 3);
	CHECK(!futimens(fd, times));
	CHECK(!fstat(fd, &status) && status.st_mtim.tv_nsec == times[1].tv_nsec);
	close(fd);
}

static void file_changed_while_the_mount_was_away_is_refused(void)
{
	struct fdmabuf_range range;
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *t;

	given_several(FULL, SIZE);
	usleep(20000);		/* so that the clock of the filesystem has ticked */
	queue = given_queue(FDMABUF_AUTO, 1, 0);
	changed_name = realpath(files[0]->real_path, NULL);
	CHECK(!rename(files[0]->real_path, other_name));
	simulation.end_request = 3;
	range = range_of(0, 0, 0, 0, 31 * BLOCK);
	t = start(queue, FDMABUF_READ, &range, 1, 0);
	CHECK_EQUAL(fdmabuf_transfer_wait(t, 50), -ETIMEDOUT);
	CHECK_EQUAL(fdmabuf_transfer_state(t), FDMABUF_WAITING);
	change_and_set_time_back();
	CHECK(!rename(other_name, files[0]->real_path));
	wait_for(t);
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), -ESTALE);
	CHECK(strstr(fdmabuf_error(), "the file was changed meanwhile"));
	check_not_overstated(t, &range, 1);
	fdmabuf_transfer_free(t);
	fdmabuf_queue_close(queue);
	free((char *)changed_name);
}

static int change_at_the_end(void *data, const struct fdmabuf_progress *progress)
{
	unsigned *changes = data;

	if (progress->done < 22 * BLOCK || *changes)
		return 0;
	change_and_set_time_back();
	*changes = 1;
	return 0;
}

static void file_changed_after_the_mount_has_returned_is_refused(void)
{
	struct fdmabuf_range ranges[2];
	struct fdmabuf_operation operation = {
		.size = sizeof(operation),
		.ranges = ranges,
		.count = 2,
		.progress = change_at_the_end,
	};
	struct fdmabuf_transfer *t;
	struct fdmabuf_queue *queue;

	for (unsigned ends = 0; ends < 2; ends++) {
		unsigned changes = 0;

		given_several(FULL, SIZE);
		usleep(20000);
		queue = given_queue(FDMABUF_AUTO, 1, 0);
		changed_name = realpath(files[0]->real_path, NULL);
		simulation.end_request = ends ? 3 : 0;
		ranges[0] = range_of(0, 0, 0, 0, 31 * BLOCK);
		ranges[1] = range_of(1, 0, 1, 0, BLOCK);
		operation.data = &changes;
		CHECK_EQUAL(fdmabuf_submit(queue, &operation, &t), 0);
		wait_for(t);
		CHECK_EQUAL(changes, 1);
		/* A file that was not opened again may change: reads are not atomic. */
		CHECK_EQUAL(fdmabuf_transfer_bytes(t), ends ? -ESTALE : (int)(32 * BLOCK));
		if (ends) {
			CHECK(strstr(fdmabuf_error(), "while it was read"));
			CHECK_EQUAL(result_of_range(t, 0).done, 0);
			CHECK_EQUAL(result_of_range(t, 0).error, -ESTALE);
			CHECK_EQUAL(result_of_range(t, 1).done, BLOCK);
			CHECK_EQUAL(result_of_range(t, 1).error, 0);
		}
		fdmabuf_transfer_free(t);
		fdmabuf_queue_close(queue);
		free((char *)changed_name);
	}
}

static void queues_keep_their_descriptors_when_another_one_opens_the_file_again(void)
{
	struct fdmabuf_queue *first, *second;
	struct fdmabuf_transfer *t;
	struct fdmabuf_range range;
	int old;

	given_several(FULL, SIZE);
	first = given_queue(FDMABUF_DIRECT, 3, 0);
	second = given_queue(FDMABUF_DIRECT, 3, 0);
	range = range_of(0, 0, 0, 0, 31 * BLOCK);
	old = files[0]->handle->fd;
	simulation.hanging_fd = old;
	t = start(second, FDMABUF_READ, &range, 1, 0);
	CHECK_EQUAL(fdmabuf_transfer_wait(t, 0), -ETIMEDOUT);
	simulate_end(old);
	simulation.hanging_fd = 0;
	CHECK_EQUAL(fdmabuf_read(first, &range, 1, 0), 31 * BLOCK);
	CHECK_EQUAL(counters_of_queue(first).reopens, 1);
	CHECK(files[0]->handle->fd != old);
	CHECK(is_open(old));		/* the other queue's requests use it */
	wait_for(t);
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), 31 * BLOCK);
	CHECK_EQUAL(simulation.fd, files[0]->handle->fd);
	fdmabuf_transfer_free(t);
	CHECK(!is_open(old));
	fdmabuf_queue_close(first);
	clear_memories();
	check_read(second, &range, 1, 0);
	fdmabuf_queue_close(second);
}

/* ------------------------------------------------------------ a broken ring */

static void broken_ring_ends_all_transfers(void)
{
	for (unsigned round = 0; round < 60; round++) {
		struct fdmabuf_range ranges[2];
		struct fdmabuf_transfer *a, *b;
		struct fdmabuf_queue *queue;
		int64_t done;

		given_several(FULL, SIZE);
		simulation.random = round + 1;
		simulation.completes_alone = round % 2;
		simulation.break_request = 1 + round / 4 % 10;
		queue = given_queue(round % 3 ? FDMABUF_AUTO : FDMABUF_BOUNCE, 3, 0);
		ranges[0] = range_of(0, 0, 0, 0, 31 * BLOCK);
		ranges[1] = range_of(1, 5, 1, 5, 31 * BLOCK);
		a = start(queue, FDMABUF_READ, ranges, 2, 0);
		b = NULL;
		if (!queue->broken)
			b = start(queue, FDMABUF_READ, ranges, 2, 0);
		wait_for(a);
		CHECK_EQUAL(fdmabuf_transfer_bytes(a), -EBADF);
		CHECK(strstr(fdmabuf_transfer_error(a), "io_uring"));
		CHECK(strstr(fdmabuf_transfer_error(a), "open a new queue"));
		check_not_overstated(a, ranges, 2);
		if (b) {
			wait_for(b);
			CHECK_EQUAL(fdmabuf_transfer_bytes(b), -EBADF);
		}
		CHECK_EQUAL(simulation.in_flight, 0);
		done = fdmabuf_read(queue, ranges, 2, 0);
		CHECK_EQUAL(done, -EBADF);
		CHECK_EQUAL(fdmabuf_queue_fd(queue), -EBADF);
		CHECK_EQUAL(fdmabuf_queue_poll(queue), b ? 2 : 1);
		/* Nothing is lost: all requests are free again. */
		CHECK(!queue->ready.first);
		for (unsigned i = 0; i < 3; i++)
			CHECK(request_list_take(&queue->free));
		CHECK(!request_list_take(&queue->free));
		fdmabuf_queue_close(queue);
		fdmabuf_transfer_free(a);
		fdmabuf_transfer_free(b);
	}
}

/* The ring breaks while the device has requests that do not complete: they are waited for. */
static void broken_ring_waits_for_what_the_device_has(void)
{
	struct fdmabuf_range first, second;
	struct fdmabuf_transfer *a, *b;
	struct fdmabuf_queue *queue;
	int fd;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	fd = fdmabuf_queue_fd(queue);
	simulation.hangs = true;
	first = range_of(0, 0, 0, 0, CHUNK);
	second = range_of(1, 0, 1, 0, CHUNK);
	a = start(queue, FDMABUF_READ, &first, 1, 0);
	simulation.break_request = 2;
	b = start(queue, FDMABUF_READ, &second, 1, 0);
	/* What the kernel has not seen is over at once, also for an event loop. */
	CHECK(is_readable(fd, 1000));
	CHECK_EQUAL(fdmabuf_queue_poll(queue), 1);
	CHECK_EQUAL(fdmabuf_transfer_state(b), FDMABUF_FINISHED);
	CHECK(fdmabuf_transfer_state(a) != FDMABUF_FINISHED);
	CHECK_EQUAL(fdmabuf_transfer_wait(a, 50), -ETIMEDOUT);
	CHECK_EQUAL(simulation.in_flight, 1);
	simulation.hangs = false;
	wait_for(a);
	CHECK_EQUAL(simulation.in_flight, 0);
	CHECK_EQUAL(fdmabuf_transfer_bytes(a), -EBADF);
	check_not_overstated(a, &first, 1);
	fdmabuf_transfer_free(a);
	fdmabuf_transfer_free(b);
	fdmabuf_queue_close(queue);
}

/* The ring breaks in the last submission of a call. */
static void broken_ring_ends_a_transfer_of_an_event_loop(void)
{
	struct fdmabuf_range range;
	struct fdmabuf_transfer *t;
	struct fdmabuf_queue *queue;
	int fd;

	given_several(FULL, SIZE);
	simulation.completes_alone = true;
	simulation.break_request = 2;
	queue = given_queue(FDMABUF_AUTO, 1, 0);
	fd = fdmabuf_queue_fd(queue);
	range = range_of(0, 0, 0, 0, 31 * BLOCK);
	t = start(queue, FDMABUF_READ, &range, 1, 0);
	CHECK(queue->broken);
	CHECK(is_readable(fd, 1000));
	CHECK_EQUAL(fdmabuf_queue_poll(queue), 1);
	CHECK(fdmabuf_queue_next(queue) == t);
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), -EBADF);
	CHECK_EQUAL(result_of_range(t, 0).done, CHUNK);
	fdmabuf_transfer_free(t);
	fdmabuf_queue_close(queue);
}

/* --------------------------------------------------------------------- fork */

/* Runs @function in a child, whose checks have to hold as well. */
static void run_in_child(void (*function)(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t),
			 struct fdmabuf_queue *queue, struct fdmabuf_transfer *t)
{
	int status;
	pid_t child = fork();

	CHECK(child >= 0);
	if (!child) {
		function(queue, t);
		exit(0);
	}
	CHECK_EQUAL(waitpid(child, &status, 0), child);
	CHECK_EQUAL(status, 0);
}

static void use_queue_of_the_parent(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t)
{
	struct fdmabuf_result result = { .size = sizeof(result) };
	struct fdmabuf_range range = range_of(0, 0, 0, 0, 31 * BLOCK);
	struct fdmabuf_queue *own;
	unsigned tokens = simulation.tokens;

	CHECK_EQUAL(fdmabuf_read(queue, &range, 1, 0), -ECHILD);
	CHECK(strstr(fdmabuf_error(), "fork"));
	CHECK_EQUAL(fdmabuf_queue_check(queue, FDMABUF_READ, &range, 0, &result), -ECHILD);
	CHECK_EQUAL(fdmabuf_queue_poll(queue), -ECHILD);
	CHECK_EQUAL(fdmabuf_queue_wait(queue, -1), -ECHILD);
	CHECK_EQUAL(fdmabuf_queue_fd(queue), -ECHILD);
	CHECK(!fdmabuf_queue_next(queue));
	CHECK_EQUAL(fdmabuf_transfer_wait(t, -1), -ECHILD);
	CHECK_EQUAL(fdmabuf_transfer_cancel(t, -1), -ECHILD);
	/* A queue of its own works with the same files and buffers. */
	own = given_queue(FDMABUF_DIRECT, 3, 0);
	CHECK_EQUAL(fdmabuf_read(own, &range, 1, 0), 31 * BLOCK);
	fdmabuf_queue_close(own);
	CHECK_EQUAL(simulation.tokens, tokens);
}

static void free_then_close(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t)
{
	unsigned tokens = simulation.tokens, in_flight = simulation.in_flight;

	fdmabuf_transfer_free(t);
	fdmabuf_queue_close(queue);
	fdmabuf_file_close(files[1]);
	files[1] = NULL;
	fdmabuf_file_close(files[0]);
	fdmabuf_buffer_free(buffers[0]);
	CHECK_EQUAL(simulation.tokens, tokens);
	CHECK_EQUAL(simulation.in_flight, in_flight);
}

static void close_then_free(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t)
{
	unsigned tokens = simulation.tokens;

	fdmabuf_file_close(files[1]);
	files[1] = NULL;
	fdmabuf_queue_close(queue);
	CHECK_EQUAL(fdmabuf_transfer_state(t), FDMABUF_FINISHED);
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), -ECHILD);
	fdmabuf_transfer_free(t);
	CHECK_EQUAL(simulation.tokens, tokens);
}

static void child_leaves_the_queue_to_its_parent(void)
{
	void (*const functions[])(struct fdmabuf_queue *, struct fdmabuf_transfer *) = {
		use_queue_of_the_parent, free_then_close, close_then_free,
	};
	struct fdmabuf_transfer *t, *finished;
	struct fdmabuf_queue *queue;
	struct fdmabuf_range range;
	int fd;

	for (unsigned i = 0; i < sizeof(functions) / sizeof(*functions); i++) {
		given_several(FULL, SIZE);
		queue = given_queue(FDMABUF_DIRECT, 3, 0);
		fd = fdmabuf_queue_fd(queue);
		read_block(queue, 1, 1);	/* an idle token */
		finished = start(queue, FDMABUF_READ, NULL, 0, 0);
		range = range_of(0, 0, 0, 0, 31 * BLOCK);
		t = start(queue, FDMABUF_READ, &range, 1, 0);
		CHECK(is_readable(fd, 0));
		run_in_child(functions[i], queue, t);
		CHECK(is_readable(fd, 0));	/* the child has not touched the timer */
		CHECK_EQUAL(simulation.tokens, 2);
		wait_for(t);
		CHECK_EQUAL(fdmabuf_transfer_bytes(t), 31 * BLOCK);
		fdmabuf_transfer_free(t);
		fdmabuf_transfer_free(finished);
		read_block(queue, 1, 1);
		CHECK_EQUAL(counters_of_queue(queue).tokens, 2);
		fdmabuf_queue_close(queue);
	}
}

/* ------------------------------------------------------ structs of other sizes */

/* A struct of a newer header. */
struct newer {
	union {
		struct fdmabuf_queue_options options;
		struct fdmabuf_operation operation;
		struct fdmabuf_result result;
		struct fdmabuf_counters counters;
	};
	unsigned char added[24];
};

static void structs_of_other_headers_are_taken(void)
{
	struct newer newer = { .options = { .depth = 3 } };
	size_t size = offsetof(struct fdmabuf_queue_options, chunk);
	struct fdmabuf_queue *queue = NULL;
	struct fdmabuf_transfer *t = NULL;

	given_several(FULL, SIZE);
	/* An older one has fewer members; what follows in memory is not the struct's. */
	newer.options.size = size;
	newer.options.chunk = 77;
	CHECK_EQUAL(fdmabuf_queue_open(&newer.options, &queue), 0);
	CHECK_EQUAL(queue->chunk, 4 << 20);
	CHECK_EQUAL(queue->depth, 3);
	fdmabuf_queue_close(queue);
	newer.options.size = sizeof(size_t);
	CHECK_EQUAL(fdmabuf_queue_open(&newer.options, &queue), -EINVAL);
	newer = (struct newer){ .options = { .size = sizeof(newer) } };
	CHECK_EQUAL(fdmabuf_queue_open(&newer.options, &queue), 0);
	newer.added[23] = 1;
	CHECK_EQUAL(fdmabuf_queue_open(&newer.options, &(struct fdmabuf_queue *){ NULL }), -E2BIG);

	newer = (struct newer){ .operation = { .size = sizeof(newer) } };
	CHECK_EQUAL(fdmabuf_submit(queue, &newer.operation, &t), 0);
	fdmabuf_transfer_free(t);
	newer.added[23] = 1;
	CHECK_EQUAL(fdmabuf_submit(queue, &newer.operation, &t), -E2BIG);
	CHECK(strstr(fdmabuf_error(), "does not know"));
	fdmabuf_queue_close(queue);
}

/* Checks a struct of @size bytes that was filled: nothing behind, and zeros where it is newer. */
static void check_written(const void *written, size_t size, size_t own)
{
	const unsigned char *bytes = written;
	size_t said;

	memcpy(&said, written, sizeof(said));
	CHECK_EQUAL(said, size);
	for (size_t i = size; i < 2 * sizeof(struct newer); i++)
		CHECK_EQUAL(bytes[i], 0xcc);
	for (size_t i = own; i < size; i++)
		CHECK_EQUAL(bytes[i], 0);
}

static void structs_of_other_headers_are_filled(void)
{
	struct fdmabuf_counters counters;
	struct fdmabuf_result result;
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *t;
	struct fdmabuf_range range;

	given_several(FULL, SIZE);
	queue = given_queue(FDMABUF_AUTO, 3, 0);
	range = range_of(0, 1, 0, 0, BLOCK);
	t = start(queue, FDMABUF_READ, &range, 1, 0);
	wait_for(t);
	result = result_of_range(t, 0);
	counters = counters_of_queue(queue);
	for (size_t size = 0; size < sizeof(struct newer); size++) {
		struct newer written[2];
		int expected_result = size > sizeof(size) ? 0 : -EINVAL;

		memset(written, 0xcc, sizeof(written));
		memcpy(written, &size, sizeof(size));
		CHECK_EQUAL(fdmabuf_transfer_result(t, 0, &written->result), expected_result);
		if (!expected_result) {
			check_written(written, size, sizeof(result));
			CHECK(!memcmp((char *)written + 8, (char *)&result + 8,
				      min_u64(size, sizeof(result)) - 8));
		}
		memset(written, 0xcc, sizeof(written));
		memcpy(written, &size, sizeof(size));
		CHECK_EQUAL(fdmabuf_queue_counters(queue, &written->counters), expected_result);
		if (!expected_result) {
			check_written(written, size, sizeof(counters));
			CHECK(!memcmp((char *)written + 8, (char *)&counters + 8,
				      min_u64(size, sizeof(counters)) - 8));
		}
	}
	fdmabuf_transfer_free(t);
	fdmabuf_queue_close(queue);
}

/* ------------------------------------------------------------------ threads */

static void *read_for_a_while(void *argument)
{
	struct fdmabuf_queue *queue = given_queue(FDMABUF_AUTO, 3, 2);

	for (unsigned i = 0; i < 200; i++) {
		struct fdmabuf_range ranges[2] = {
			range_of(i % SEVERAL, BLOCK, 0, 10 * BLOCK * (argument != NULL), 5 * BLOCK),
			range_of(i % SEVERAL, 9, 1, 10 * BLOCK * (argument != NULL), 5 * BLOCK),
		};

		CHECK_EQUAL(fdmabuf_read(queue, ranges, 2, 0), 10 * BLOCK);
		check_range_arrived(&ranges[0], 5 * BLOCK);
		check_range_arrived(&ranges[1], 5 * BLOCK);
		CHECK(counters_of_queue(queue).tokens_kept <= 2);
	}
	fdmabuf_queue_close(queue);
	return NULL;
}

static void *open_and_close(void *stop)
{
	while (!__atomic_load_n((bool *)stop, __ATOMIC_RELAXED)) {
		struct fdmabuf_buffer *own = make_simulated(memories[2], BUFFER_SIZE, 2);
		struct fdmabuf_queue *queue = given_queue(FDMABUF_AUTO, 3, 2);
		struct fdmabuf_range range = range_of(0, 0, 0, 0, BLOCK);

		range.buffer = own;
		CHECK_EQUAL(fdmabuf_read(queue, &range, 1, 0), BLOCK);
		fdmabuf_buffer_free(own);
		fdmabuf_queue_close(queue);
	}
	return NULL;
}

static void threads_share_files_and_buffers(void)
{
	pthread_t threads[3];
	bool stop = false;

	given_several(FULL, SIZE);
	CHECK(!pthread_create(&threads[0], NULL, read_for_a_while, NULL));
	CHECK(!pthread_create(&threads[1], NULL, read_for_a_while, ""));
	CHECK(!pthread_create(&threads[2], NULL, open_and_close, &stop));
	CHECK(!pthread_join(threads[0], NULL));
	CHECK(!pthread_join(threads[1], NULL));
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	CHECK(!pthread_join(threads[2], NULL));
	CHECK_EQUAL(simulation.tokens, 0);
}

struct closer {
	pthread_barrier_t barrier;
	struct fdmabuf_file *file;
	struct fdmabuf_buffer *buffer;
};

static void *close_at_the_barrier(void *data)
{
	struct closer *closer = data;

	pthread_barrier_wait(&closer->barrier);
	fdmabuf_file_close(closer->file);
	fdmabuf_buffer_free(closer->buffer);
	return NULL;
}

/* The queue gives up tokens, uses them, or closes while another thread ends them. */
static void threads_close_what_a_queue_keeps(void)
{
	struct closer closer;

	given_several(FULL, SIZE);
	pthread_barrier_init(&closer.barrier, NULL, 2);
	for (unsigned round = 0; round < 200; round++) {
		struct fdmabuf_queue *queue = given_queue(FDMABUF_AUTO, 3, 2);
		struct fdmabuf_range range = range_of(0, 0, 0, 0, BLOCK);
		pthread_t thread;

		closer.file = range.file = open_simulated(file_name, O_RDONLY);
		closer.buffer = range.buffer = make_simulated(memories[2], BUFFER_SIZE, 2);
		CHECK_EQUAL(fdmabuf_read(queue, &range, 1, 0), 0);
		read_block(queue, 0, 0);
		CHECK(!pthread_create(&thread, NULL, close_at_the_barrier, &closer));
		pthread_barrier_wait(&closer.barrier);
		if (round % 3 == 0)
			read_block(queue, 1, 0);
		else if (round % 3 == 1)
			read_block(queue, 0, 0);
		fdmabuf_queue_close(queue);
		CHECK(!pthread_join(thread, NULL));
		CHECK_EQUAL(simulation.tokens, 0);
	}
	pthread_barrier_destroy(&closer.barrier);
}

int main(void)
{
	RUN(several_files_and_buffers_come_in_one_transfer);
	RUN(no_ranges_and_empty_ranges_finish_at_once);
	RUN(empty_range_has_no_whole_blocks);
	RUN(ranges_without_file_buffer_or_array_are_refused);
	RUN(duplicate_and_overlapping_ranges_come_right);
	RUN(contiguous_ranges_are_joined);
	RUN(whole_blocks_of_small_ranges_are_joined);
	RUN(whole_blocks_spare_other_ranges_in_the_same_block);
	RUN(scattered_memory_takes_one_command);
	RUN(kernel_without_vectors_moves_piece_by_piece);
	RUN(short_vectors_go_on_in_the_middle_of_a_piece);
	RUN(more_pieces_than_one_command_takes);
	RUN(each_range_has_a_result);
	RUN(refused_request_is_a_reason);
	RUN(results_after_an_error_are_not_overstated);
	RUN(failed_flush_is_not_overstated);
	RUN(any_vector_of_ranges_comes_right_whatever_happens);
	RUN(any_number_of_transfers_comes_right_whatever_happens);
	RUN(tokens_are_kept);
	RUN(least_recently_used_token_is_given_up);
	RUN(few_tokens_serve_many_pairs_of_one_transfer);
	RUN(two_transfers_share_one_token);
	RUN(limit_of_the_broker_gives_up_idle_tokens);
	RUN(limit_of_the_broker_without_idle_tokens_means_bounce);
	RUN(token_ends_with_its_file_or_buffer);
	RUN(token_ends_with_its_file_in_another_thread);
	RUN(closed_file_stays_until_the_transfer_has_finished);
	RUN(token_that_ended_before_is_made_anew);
	RUN(many_pairs_do_not_add_up);
	RUN(transfer_of_a_hanging_device_is_cancelled);
	RUN(other_transfers_go_on_beside_a_hanging_one);
	RUN(close_cancels_what_has_not_finished);
	RUN(free_cancels_a_transfer);
	RUN(progress_is_told_while_nothing_completes);
	RUN(small_transfer_is_not_held_up_by_a_large_one);
	RUN(all_transfers_get_turns);
	RUN(waiting_beside_a_finished_transfer_does_not_spin);
	RUN(wait_times_out);
	RUN(next_returns_each_transfer_once);
	RUN(event_loop_sees_the_end_and_nothing_else);
	RUN(event_loop_ends_a_cancelled_transfer);
	RUN(event_loop_waits_for_a_mount);
	RUN(other_files_go_on_while_one_waits_for_its_mount);
	RUN(cancelled_transfer_that_waited_for_a_mount_does_not_spin);
	RUN(file_changed_while_the_mount_was_away_is_refused);
	RUN(file_changed_after_the_mount_has_returned_is_refused);
	RUN(queues_keep_their_descriptors_when_another_one_opens_the_file_again);
	RUN(broken_ring_ends_all_transfers);
	RUN(broken_ring_waits_for_what_the_device_has);
	RUN(broken_ring_ends_a_transfer_of_an_event_loop);
	RUN(child_leaves_the_queue_to_its_parent);
	RUN(structs_of_other_headers_are_taken);
	RUN(structs_of_other_headers_are_filled);
	RUN(threads_share_files_and_buffers);
	RUN(threads_close_what_a_queue_keeps);
	remove_given();
	return 0;
}
