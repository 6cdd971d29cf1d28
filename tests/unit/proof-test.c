/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests the proof of the direct path on a simulated kernel whose requests succeed and move other
 * bytes: all of them, one of a hundred, or only writes.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "check.h"
#include "queue/evidence.h"
#include "queue/queue.h"
#include "simulated-ring.h"
#include "simulation.h"

#define FULL "################################"	/* 32 blocks */
#define SIZE (31 * BLOCK + 700)			/* of a file that ends in a block */

static char warning[1024];
static unsigned warnings;

static void note_warning(void *data, const char *text)
{
	CHECK(data == &warnings);
	warnings++;
	snprintf(warning, sizeof(warning), "%s", text);
}

/* Makes files and buffers of devices that this process knows nothing of. */
static void given_new_devices(uint64_t size)
{
	static unsigned number;

	given_several(FULL, size);
	number++;
	for (unsigned i = 0; i < SEVERAL; i++)
		snprintf(buffers[i]->device, sizeof(buffers[i]->device), "test device %u", number);
	warnings = 0;
	fdmabuf_on_warning(note_warning, &warnings);
}

static struct fdmabuf_queue *given_proving_queue(enum fdmabuf_path path, enum fdmabuf_proof proof)
{
	return queue_with((struct fdmabuf_queue_options){
		.path = path,
		.depth = 3,
		.chunk = CHUNK,
		.proof = proof,
	});
}

/* Reads the first file into the first buffer, from one block on. Returns the range's result. */
static struct fdmabuf_result read_first(struct fdmabuf_queue *queue, int64_t expected,
					uint64_t size)
{
	const struct fdmabuf_range range = range_of(0, 0, 0, BLOCK, size);
	struct fdmabuf_transfer *t = start(queue, FDMABUF_READ, &range, 1, FDMABUF_WHOLE_BLOCKS);
	struct fdmabuf_result result;

	CHECK_EQUAL(fdmabuf_transfer_wait(t, -1), 0);
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), expected);
	result = result_of_range(t, 0);
	fdmabuf_transfer_free(t);
	if (expected > 0)
		CHECK(!memcmp(memories[0] + BLOCK, models[0], expected));
	return result;
}

static void check_untouched_around(uint64_t size)
{
	for (unsigned i = 0; i < BLOCK; i++)
		CHECK_EQUAL(memories[0][i], UNTOUCHED);
	for (uint64_t i = BLOCK + align_up(size, BLOCK); i < BUFFER_SIZE; i++)
		CHECK_EQUAL(memories[0][i], UNTOUCHED);
}

static void right_path_is_proven_once(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_result result;
	struct fdmabuf_counters counters;

	given_new_devices(SIZE);
	queue = given_proving_queue(FDMABUF_DIRECT, FDMABUF_PROOF_ONCE);
	result = read_first(queue, SIZE, SIZE);
	check_untouched_around(SIZE);
	CHECK_EQUAL(result.path, FDMABUF_DIRECT);
	CHECK_EQUAL(result.reason, FDMABUF_REASON_NONE);
	CHECK_EQUAL(result.proven, FDMABUF_PROVEN);
	counters = counters_of_queue(queue);
	/* Eight blocks by each path, the last one with 700 bytes; the marks of eight requests. */
	CHECK_EQUAL(counters.requests, 16 + 8);
	CHECK_EQUAL(counters.bytes_proven, 7 * BLOCK + 700 + 8 * 2 * 8);
	CHECK_EQUAL(counters.bytes_direct, SIZE);
	CHECK_EQUAL(counters.bytes_copied, 0);

	clear_memories();
	CHECK_EQUAL(read_first(queue, SIZE, SIZE).proven, FDMABUF_PROVEN);
	CHECK_EQUAL(counters_of_queue(queue).requests, 16 + 8 + 8);
	fdmabuf_queue_close(queue);

	/* Another queue of the process knows it, too. */
	clear_memories();
	queue = given_proving_queue(FDMABUF_DIRECT, FDMABUF_PROOF_ONCE);
	read_first(queue, SIZE, SIZE);
	CHECK_EQUAL(counters_of_queue(queue).requests, 8);
	fdmabuf_queue_close(queue);
	queue = given_proving_queue(FDMABUF_DIRECT, FDMABUF_PROOF_ALWAYS);
	read_first(queue, SIZE, SIZE);
	read_first(queue, SIZE, SIZE);
	CHECK_EQUAL(counters_of_queue(queue).requests, 16 + 8 + 8);
	fdmabuf_queue_close(queue);
	CHECK_EQUAL(warnings, 0);
}

/* Three files into one buffer, and a part of one into another buffer. */
static void given_four_ranges(struct fdmabuf_range ranges[4])
{
	given_new_devices(32 * BLOCK);
	for (unsigned i = 0; i < 3; i++)
		ranges[i] = range_of(i, 0, 0, 16 * i * BLOCK, 16 * BLOCK);
	ranges[3] = range_of(1, 0, 1, 0, 4 * BLOCK);
}

static void devices_have_one_proof_and_not_files(void)
{
	struct fdmabuf_range ranges[4];
	struct fdmabuf_queue *queue;

	given_four_ranges(ranges);
	queue = given_proving_queue(FDMABUF_DIRECT, FDMABUF_PROOF_ONCE);
	CHECK_EQUAL(fdmabuf_read(queue, ranges, 4, 0), 52 * BLOCK);
	CHECK_EQUAL(counters_of_queue(queue).requests, 16 + 13);
	for (unsigned i = 0; i < 3; i++)
		CHECK(!memcmp(memories[0] + 16 * i * BLOCK, models[i], 16 * BLOCK));
	fdmabuf_queue_close(queue);

	given_four_ranges(ranges);
	queue = given_proving_queue(FDMABUF_DIRECT, FDMABUF_PROOF_ALWAYS);
	CHECK_EQUAL(fdmabuf_read(queue, ranges, 4, 0), 52 * BLOCK);
	CHECK_EQUAL(counters_of_queue(queue).requests, 2 * (3 * 8 + 4) + 13);
	fdmabuf_queue_close(queue);
}

static void small_reads_prove_a_path_together(void)
{
	struct fdmabuf_queue *queue;

	given_new_devices(SIZE);
	queue = given_proving_queue(FDMABUF_DIRECT, FDMABUF_PROOF_ONCE);
	CHECK_EQUAL(read_first(queue, 3 * BLOCK, 3 * BLOCK).proven, FDMABUF_NOT_PROVEN);
	CHECK_EQUAL(counters_of_queue(queue).requests, 6 + 1);
	read_first(queue, 3 * BLOCK, 3 * BLOCK);
	CHECK_EQUAL(read_first(queue, 3 * BLOCK, 3 * BLOCK).proven, FDMABUF_PROVEN);
	CHECK_EQUAL(counters_of_queue(queue).requests, 3 * 7);
	read_first(queue, 3 * BLOCK, 3 * BLOCK);
	CHECK_EQUAL(counters_of_queue(queue).requests, 3 * 7 + 1);
	fdmabuf_queue_close(queue);
}

static void check_warning(const char *what)
{
	CHECK_EQUAL(warnings, 1);
	CHECK(strstr(warning, what));
	CHECK(strstr(warning, "test device "));
	CHECK(strstr(warning, files[0]->path));
	CHECK(strstr(warning, "exporter test"));
}

static void path_that_loses_all_reads_is_not_used(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_result result;

	given_new_devices(SIZE);
	simulation.lose_every = 1;
	queue = given_proving_queue(FDMABUF_AUTO, FDMABUF_PROOF_ONCE);
	for (unsigned i = 0; i < 2; i++) {
		result = read_first(queue, SIZE, SIZE);
		check_untouched_around(SIZE);
		CHECK_EQUAL(result.path, FDMABUF_BOUNCE);
		CHECK_EQUAL(result.reason, FDMABUF_REASON_UNPROVEN);
		CHECK_EQUAL(result.proven, FDMABUF_DISPROVED);
		CHECK(strstr(result.text, "test device "));
	}
	CHECK_EQUAL(counters_of_queue(queue).bytes_direct, 0);
	check_warning("direct reads between");
	fdmabuf_queue_close(queue);

	/* The process does not use it any more, and asks no other device to do something. */
	queue = given_proving_queue(FDMABUF_AUTO, FDMABUF_PROOF_ONCE);
	CHECK_EQUAL(read_first(queue, SIZE, SIZE).reason, FDMABUF_REASON_UNPROVEN);
	fdmabuf_queue_close(queue);
	CHECK_EQUAL(warnings, 1);
}

static void lost_reads_are_an_error_without_bounce(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *t;
	struct fdmabuf_range range;

	given_new_devices(SIZE);
	simulation.lose_every = 1;
	range = range_of(0, 0, 0, BLOCK, SIZE);
	queue = given_proving_queue(FDMABUF_DIRECT, FDMABUF_PROOF_ONCE);
	t = start(queue, FDMABUF_READ, &range, 1, FDMABUF_WHOLE_BLOCKS);
	wait_for(t);
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), -EIO);
	CHECK(strstr(fdmabuf_transfer_error(t), "move other bytes"));
	CHECK_EQUAL(result_of_range(t, 0).done, 0);
	fdmabuf_transfer_free(t);
	CHECK_EQUAL(fdmabuf_read(queue, &range, 1, FDMABUF_WHOLE_BLOCKS), -EIO);
	CHECK(strstr(fdmabuf_error(), "move other bytes"));
	fdmabuf_queue_close(queue);
}

/* One of a hundred requests: the samples are right, and marks find what comes after them. */
static void path_that_loses_some_reads_is_not_used(void)
{
	for (unsigned every = 9; every <= 100; every += 7) {
		struct fdmabuf_queue *queue;
		struct fdmabuf_result result;
		uint64_t bytes = 0;

		given_new_devices(SIZE);
		simulation.lose_every = every;
		queue = given_proving_queue(FDMABUF_AUTO, FDMABUF_PROOF_ONCE);
		do {
			clear_memories();
			result = read_first(queue, SIZE, SIZE);
			check_untouched_around(SIZE);
			bytes += SIZE;
			CHECK(bytes <= 2 * every * (uint64_t)SIZE);
		} while (result.path == FDMABUF_DIRECT);
		CHECK_EQUAL(simulation.lost, 1);
		CHECK_EQUAL(result.proven, FDMABUF_DISPROVED);
		check_warning("left a mark");
		fdmabuf_queue_close(queue);

		given_new_devices(SIZE);
		simulation.lose_every = every;
		queue = given_proving_queue(FDMABUF_DIRECT, FDMABUF_PROOF_ONCE);
		while (!simulation.lost) {
			const struct fdmabuf_range range = range_of(0, 0, 0, BLOCK, SIZE);
			int64_t got = fdmabuf_read(queue, &range, 1, FDMABUF_WHOLE_BLOCKS);

			CHECK_EQUAL(got, simulation.lost ? -EIO : (int)SIZE);
		}
		fdmabuf_queue_close(queue);
	}
}

static void nothing_is_proven_if_never_is_asked(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_counters counters;

	given_new_devices(SIZE);
	queue = given_proving_queue(FDMABUF_AUTO, FDMABUF_PROOF_NEVER);
	CHECK_EQUAL(read_first(queue, SIZE, SIZE).proven, FDMABUF_NOT_PROVEN);
	counters = counters_of_queue(queue);
	CHECK_EQUAL(counters.requests, 8);
	CHECK_EQUAL(counters.bytes_proven, 0);
	fdmabuf_queue_close(queue);
}

static void buffer_that_nobody_can_look_into_is_unprovable(void)
{
	struct fdmabuf_queue *queue;
	unsigned char *map;

	given_new_devices(8 * BLOCK);
	map = buffers[0]->map;
	buffers[0]->map = NULL;
	queue = given_proving_queue(FDMABUF_AUTO, FDMABUF_PROOF_ALWAYS);
	CHECK_EQUAL(read_first(queue, 8 * BLOCK, 8 * BLOCK).proven, FDMABUF_UNPROVABLE);
	CHECK_EQUAL(counters_of_queue(queue).bytes_proven, 0);
	fdmabuf_queue_close(queue);
	buffers[0]->map = map;
}

/* Holes, and zeros of a file, prove nothing: the kernel can have written them itself. */
static void zeros_prove_nothing(void)
{
	struct fdmabuf_queue *queue;

	given_several("................................", 32 * BLOCK);
	snprintf(buffers[0]->device, sizeof(buffers[0]->device), "zeros");
	queue = given_proving_queue(FDMABUF_DIRECT, FDMABUF_PROOF_ONCE);
	CHECK_EQUAL(read_first(queue, 32 * BLOCK, 32 * BLOCK).proven, FDMABUF_NOT_PROVEN);
	fdmabuf_queue_close(queue);
}

/* ------------------------------------------------------------------ writes */

/* Writes the whole first buffer to the first file. */
static struct fdmabuf_result write_first(struct fdmabuf_queue *queue, int64_t expected)
{
	const struct fdmabuf_range range = range_of(0, 3 * BLOCK, 0, 0, 40 * BLOCK);
	struct fdmabuf_transfer *t = start(queue, FDMABUF_WRITE, &range, 1, 0);
	struct fdmabuf_result result;

	wait_for(t);
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), expected);
	result = result_of_range(t, 0);
	fdmabuf_transfer_free(t);
	return result;
}

static void given_content(void)
{
	unsigned long long random = 3;

	given_new_devices(SIZE);
	for (size_t i = 0; i < sizeof(memories); i += sizeof(random)) {
		unsigned long long word = next_random(&random);

		memcpy(*memories + i, &word, sizeof(word));
	}
}

static void expect_written(void)
{
	memcpy(models[0] + 3 * BLOCK, memories[0], 40 * BLOCK);
	model_sizes[0] = 43 * BLOCK;
	check_models();
}

static void right_writes_are_proven(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_result result;

	given_content();
	queue = given_proving_queue(FDMABUF_DIRECT, FDMABUF_PROOF_ONCE);
	result = write_first(queue, 40 * BLOCK);
	expect_written();
	CHECK_EQUAL(result.path, FDMABUF_DIRECT);
	CHECK_EQUAL(result.proven, FDMABUF_PROVEN);
	CHECK_EQUAL(counters_of_queue(queue).bytes_proven, 8 * BLOCK);
	/* Writes say nothing of reads. */
	CHECK_EQUAL(evidence_is_proven(evidence_get(files[0]->handle, buffers[0], FDMABUF_READ)),
		    false);
	fdmabuf_queue_close(queue);
}

static void path_that_loses_writes_is_not_used(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_result result;

	given_content();
	simulation.lose_writes = true;
	queue = given_proving_queue(FDMABUF_AUTO, FDMABUF_PROOF_ONCE);
	result = write_first(queue, 40 * BLOCK);
	expect_written();
	CHECK_EQUAL(result.path, FDMABUF_BOUNCE);
	CHECK_EQUAL(result.reason, FDMABUF_REASON_UNPROVEN);
	check_warning("direct writes between");
	/* Reads still come directly. */
	result = read_first(queue, SIZE, SIZE);
	CHECK_EQUAL(result.path, FDMABUF_DIRECT);
	CHECK_EQUAL(result.proven, FDMABUF_PROVEN);
	fdmabuf_queue_close(queue);
}

/* Without bounce the write fails, but leaves no bytes in the file that nobody has written. */
static void lost_writes_leave_only_bytes_of_the_buffer(void)
{
	struct fdmabuf_queue *queue;
	unsigned char found[43 * BLOCK];

	given_content();
	simulation.lose_writes = true;
	queue = given_proving_queue(FDMABUF_DIRECT, FDMABUF_PROOF_ONCE);
	write_first(queue, -EIO);
	fdmabuf_queue_close(queue);
	memset(found, 0, sizeof(found));
	CHECK(pread(files[0]->handle->fd, found, sizeof(found), 0) > 0);
	for (unsigned block = 0; block < 43; block++) {
		const unsigned char *bytes = found + block * BLOCK;
		const unsigned char *wanted = memories[0] + (block - 3) * BLOCK;
		static const unsigned char zeros[BLOCK];

		CHECK(!memcmp(bytes, models[0] + block * BLOCK, block < 31 ? BLOCK : 700) ||
		      (block >= 3 && !memcmp(bytes, wanted, BLOCK)) ||
		      (block >= 31 && !memcmp(bytes, zeros, BLOCK)));
	}
	CHECK_EQUAL(warnings, 1);
}

/* ------------------------------------------------------------------ faults */

/* The mark of a request that moves less, or nothing, is taken out of the buffer again. */
static void marks_do_not_stay(void)
{
	struct fdmabuf_queue *queue;

	for (unsigned fails = 17; fails <= 24; fails++) {
		given_new_devices(SIZE);
		queue = given_proving_queue(FDMABUF_DIRECT, FDMABUF_PROOF_ONCE);
		simulation.fail_request = fails;
		simulation.fail_error = EIO;
		simulation.short_results = fails % 2;
		read_first(queue, -EIO, SIZE);
		for (unsigned i = 0; i < 32; i++) {
			const unsigned char *found = memories[0] + (i + 1) * BLOCK;
			const unsigned char *wanted = models[0] + i * BLOCK;
			uint64_t length = min_u64(BLOCK, SIZE - (uint64_t)i * BLOCK);

			CHECK(found[0] == UNTOUCHED || !memcmp(found, wanted, length));
			for (unsigned j = 0; j < 16 && found[0] == UNTOUCHED; j++)
				CHECK_EQUAL(found[j], UNTOUCHED);
		}
		fdmabuf_queue_close(queue);
	}
}

static void token_that_ends_during_a_proof_is_made_again(void)
{
	for (int number = 1; number <= 20; number++) {
		struct fdmabuf_queue *queue;
		struct fdmabuf_result result;

		given_new_devices(SIZE);
		simulation.revoke_request = number;
		simulation.again_percent = 20;
		simulation.short_results = number % 2;
		queue = given_proving_queue(FDMABUF_DIRECT, FDMABUF_PROOF_ONCE);
		result = read_first(queue, SIZE, SIZE);
		check_untouched_around(SIZE);
		CHECK_EQUAL(result.proven, FDMABUF_PROVEN);
		fdmabuf_queue_close(queue);
	}
	CHECK_EQUAL(warnings, 0);
}

static void proof_waits_for_a_mount_that_returns(void)
{
	for (int number = 1; number <= 20; number++) {
		struct fdmabuf_queue *queue;

		given_new_devices(SIZE);
		simulation.end_request = number;
		queue = given_proving_queue(FDMABUF_AUTO, FDMABUF_PROOF_ONCE);
		read_first(queue, SIZE, SIZE);
		CHECK_EQUAL(counters_of_queue(queue).reopens, 1);
		fdmabuf_queue_close(queue);
	}
	CHECK_EQUAL(warnings, 0);
}

static void transfer_can_be_cancelled_during_its_proof(void)
{
	struct fdmabuf_range range;
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *t;

	given_new_devices(SIZE);
	range = range_of(0, 0, 0, BLOCK, SIZE);
	simulation.hangs = true;
	queue = given_proving_queue(FDMABUF_AUTO, FDMABUF_PROOF_ONCE);
	t = start(queue, FDMABUF_READ, &range, 1, 0);
	CHECK_EQUAL(fdmabuf_transfer_wait(t, 10), -ETIMEDOUT);
	CHECK_EQUAL(fdmabuf_transfer_cancel(t, -1), 0);
	CHECK_EQUAL(fdmabuf_transfer_bytes(t), -ECANCELED);
	CHECK_EQUAL(result_of_range(t, 0).done, 0);
	fdmabuf_transfer_free(t);
	fdmabuf_queue_close(queue);
}

/* Whatever the ranges are, and whichever requests are lost, the bytes are right in the end. */
static void any_vector_is_right_on_a_path_that_loses_requests(void)
{
	unsigned long long random = 11;

	for (unsigned round = 0; round < 400; round++) {
		struct fdmabuf_range ranges[12];
		unsigned count = 1 + next_random(&random) % 12;
		struct fdmabuf_queue *queue;
		uint64_t place = 0, total = 0;

		given_new_devices(SIZE);
		simulation.random = next_random(&random) | 1;
		simulation.lose_every = next_random(&random) % 40;
		simulation.short_results = next_random(&random) % 2;
		simulation.again_percent = next_random(&random) % 30;
		queue = given_proving_queue(FDMABUF_AUTO, next_random(&random) % 2);
		for (unsigned i = 0; i < count; i++) {
			uint64_t length = next_random(&random) % (5 * BLOCK);
			uint64_t from = next_random(&random) % (SIZE - length);

			place = align_up(place, BLOCK) + from % BLOCK;
			if (place + length > BUFFER_SIZE)
				length = BUFFER_SIZE > place ? BUFFER_SIZE - place : 0;
			ranges[i] = range_of(0, from, 0, length ? place : 0, length);
			place += length;
			total += length;
		}
		shuffle_ranges(ranges, count, &random);
		CHECK_EQUAL(fdmabuf_read(queue, ranges, count, 0), total);
		for (unsigned i = 0; i < count; i++)
			CHECK(!memcmp(memories[0] + ranges[i].buffer_offset,
				      models[0] + ranges[i].file_offset, ranges[i].length));
		fdmabuf_queue_close(queue);
	}
}

int main(void)
{
	RUN(right_path_is_proven_once);
	RUN(devices_have_one_proof_and_not_files);
	RUN(small_reads_prove_a_path_together);
	RUN(path_that_loses_all_reads_is_not_used);
	RUN(lost_reads_are_an_error_without_bounce);
	RUN(path_that_loses_some_reads_is_not_used);
	RUN(nothing_is_proven_if_never_is_asked);
	RUN(buffer_that_nobody_can_look_into_is_unprovable);
	RUN(zeros_prove_nothing);
	RUN(right_writes_are_proven);
	RUN(path_that_loses_writes_is_not_used);
	RUN(lost_writes_leave_only_bytes_of_the_buffer);
	RUN(marks_do_not_stay);
	RUN(token_that_ends_during_a_proof_is_made_again);
	RUN(proof_waits_for_a_mount_that_returns);
	RUN(transfer_can_be_cancelled_during_its_proof);
	RUN(any_vector_is_right_on_a_path_that_loses_requests);
	remove_given();
	return 0;
}
