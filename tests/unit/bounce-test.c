/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests what moves without a token, on a simulated kernel: direct I/O to the pages of a buffer,
 * what the page cache has, and the threads that copy.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "base/arithmetic.h"
#include "base/error.h"
#include "buffer/exporter.h"
#include "queue/copiers.h"
#include "queue/queue.h"
#include "simulated-ring.h"
#include "simulation.h"

/* Large copies go to threads: of requests of this size. */
#define LARGE (2 * COPY_BY_THREAD_MIN)
#define LARGE_BLOCKS (LARGE / BLOCK)
#define LARGE_COUNT 8u
#define LARGE_SIZE (LARGE_COUNT * (uint64_t)LARGE)

static unsigned begun, ended;		/* accesses of the CPU */
static bool access_fails, write_fails;

static int count_access(struct fdmabuf_buffer *accessed, bool begins, bool writes)
{
	(void)accessed;
	(void)writes;
	if (access_fails)
		return fail(EIO, "the exporter refuses the access");
	begun += begins;
	ended += !begins;
	return 0;
}

static int check_pages(struct fdmabuf_buffer *mapped)
{
	CHECK(mapped->map);
	return 0;
}

static void release_nothing(struct fdmabuf_buffer *unused)
{
	(void)unused;
}

static int write_io(struct fdmabuf_buffer *to, uint64_t offset, const void *data, uint64_t length)
{
	return write_fails ? fail(EIO, "the copy failed") : io_write(to, offset, data, length);
}

static int read_io(struct fdmabuf_buffer *from, uint64_t offset, void *data, uint64_t length)
{
	while (__atomic_load_n(&simulation.copies_wait, __ATOMIC_RELAXED))
		usleep(1000);
	return io_read(from, offset, data, length);
}

static const struct exporter exporter_pages = {
	.name = "pages",
	.map = check_pages,
	.release = release_nothing,
	.write = write_io,
	.read = read_io,
	.zero = io_zero,
	.access = count_access,
};

/* Gives the buffer of given_file() pages, or only a CPU that copies, and no dma-buf. */
static void given_buffer(bool has_pages)
{
	buffer->exporter = &exporter_pages;
	buffer->has_pages = has_pages;
	buffer->dmabuf_fd = -1;
	begun = ended = 0;
	access_fails = write_fails = false;
}

static struct fdmabuf_queue *open_queue(enum fdmabuf_path path, uint32_t chunk, uint32_t threads)
{
	return queue_with((struct fdmabuf_queue_options){
		.path = path,
		.depth = 4,
		.chunk = chunk,
		.proof = FDMABUF_PROOF_NEVER,
		.copy_threads = threads,
	});
}

static struct fdmabuf_range part(uint64_t from, uint64_t at, uint64_t length)
{
	return (struct fdmabuf_range){ file, from, buffer, at, length };
}

static int64_t read_part(struct fdmabuf_queue *queue, uint64_t from, uint64_t at, uint64_t length)
{
	const struct fdmabuf_range range = part(from, at, length);

	return fdmabuf_read(queue, &range, 1, 0);
}

static int64_t write_part(struct fdmabuf_queue *queue, uint64_t from, uint64_t at, uint64_t length)
{
	const struct fdmabuf_range range = part(from, at, length);

	return fdmabuf_write(queue, &range, 1, 0);
}

static struct fdmabuf_result check_part(struct fdmabuf_queue *queue, uint64_t from, uint64_t at,
					uint64_t length)
{
	const struct fdmabuf_range range = part(from, at, length);
	struct fdmabuf_result result = { .size = sizeof(result) };

	CHECK_EQUAL(fdmabuf_queue_check(queue, FDMABUF_READ, &range, 0, &result), 0);
	return result;
}

/* -------------------------------------------------------------- direct I/O */

static void pages_are_read_by_direct_io(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_result result;

	given_file("############", 12 * BLOCK);
	given_buffer(true);
	queue = open_queue(FDMABUF_AUTO, CHUNK, 0);
	CHECK_EQUAL(read_part(queue, 0, 0, 12 * BLOCK), 12 * BLOCK);
	check_arrived(0, 0, 12 * BLOCK, 0);
	CHECK_EQUAL(counters_of_queue(queue).bytes_direct_io, 12 * BLOCK);
	CHECK_EQUAL(counters_of_queue(queue).bytes_copied, 0);
	CHECK_EQUAL(simulation.direct_ios, 3);
	CHECK(!queue->host);
	result = check_part(queue, 0, 0, BLOCK);
	CHECK_EQUAL(result.path, FDMABUF_DIRECT_IO);
	CHECK_EQUAL(result.reason, FDMABUF_REASON_NO_DMABUF);
	CHECK(*result.text);
	CHECK_EQUAL(begun, 1);
	CHECK_EQUAL(ended, 1);
	fdmabuf_queue_close(queue);
}

static void partial_blocks_are_copied_beside_direct_io(void)
{
	struct fdmabuf_queue *queue;

	given_file("############", 11 * BLOCK + 100);
	given_buffer(true);
	queue = open_queue(FDMABUF_AUTO, CHUNK, 0);
	CHECK_EQUAL(read_part(queue, 10, BLOCK + 10, 12 * BLOCK), 11 * BLOCK + 90);
	check_arrived(10, BLOCK + 10, 11 * BLOCK + 90, 0);
	CHECK_EQUAL(counters_of_queue(queue).bytes_direct_io, 10 * BLOCK);
	CHECK_EQUAL(counters_of_queue(queue).bytes_copied, BLOCK - 10 + 100);
	CHECK_EQUAL(check_part(queue, 10, BLOCK + 10, 20).path, FDMABUF_BOUNCE);
	fdmabuf_queue_close(queue);
}

static void offsets_that_differ_are_copied(void)
{
	struct fdmabuf_queue *queue;

	given_file("############", 12 * BLOCK);
	given_buffer(true);
	queue = open_queue(FDMABUF_AUTO, CHUNK, 0);
	CHECK_EQUAL(read_part(queue, 0, 7, 12 * BLOCK), 12 * BLOCK);
	check_arrived(0, 7, 12 * BLOCK, 0);
	CHECK_EQUAL(counters_of_queue(queue).bytes_direct_io, 0);
	CHECK_EQUAL(check_part(queue, 0, 7, BLOCK).path, FDMABUF_BOUNCE);
	CHECK_EQUAL(begun, ended);
	fdmabuf_queue_close(queue);
}

static void refused_direct_io_is_copied(void)
{
	struct fdmabuf_queue *queue;

	given_file("############", 12 * BLOCK);
	given_buffer(true);
	simulation.no_direct_pages = true;
	queue = open_queue(FDMABUF_AUTO, CHUNK, 0);
	CHECK_EQUAL(check_part(queue, 0, 0, BLOCK).path, FDMABUF_DIRECT_IO);
	CHECK_EQUAL(read_part(queue, 0, 0, 12 * BLOCK), 12 * BLOCK);
	check_arrived(0, 0, 12 * BLOCK, 0);
	CHECK_EQUAL(counters_of_queue(queue).bytes_copied, 12 * BLOCK);
	CHECK_EQUAL(check_part(queue, 0, 0, BLOCK).path, FDMABUF_BOUNCE);
	fdmabuf_queue_close(queue);
}

static void other_errors_of_direct_io_end_the_transfer(void)
{
	struct fdmabuf_queue *queue;

	given_file("############", 12 * BLOCK);
	given_buffer(true);
	simulation.fail_request = 2;
	simulation.fail_error = EIO;
	queue = open_queue(FDMABUF_AUTO, CHUNK, 0);
	CHECK_EQUAL(read_part(queue, 0, 0, 12 * BLOCK), -EIO);
	CHECK(strstr(fdmabuf_error(), "reading at offset"));
	CHECK_EQUAL(begun, ended);
	fdmabuf_queue_close(queue);
}

static void asked_for_bounce_or_direct_is_no_direct_io(void)
{
	struct fdmabuf_queue *queue;

	given_file("############", 12 * BLOCK);
	given_buffer(true);
	queue = open_queue(FDMABUF_BOUNCE, CHUNK, 0);
	CHECK_EQUAL(read_part(queue, 0, 0, 12 * BLOCK), 12 * BLOCK);
	CHECK_EQUAL(counters_of_queue(queue).bytes_copied, 12 * BLOCK);
	CHECK_EQUAL(simulation.direct_ios, 0);
	CHECK_EQUAL(check_part(queue, 0, 0, BLOCK).path, FDMABUF_BOUNCE);
	fdmabuf_queue_close(queue);
	queue = open_queue(FDMABUF_DIRECT, CHUNK, 0);
	CHECK_EQUAL(read_part(queue, 0, 0, BLOCK), -EOPNOTSUPP);
	fdmabuf_queue_close(queue);
}

static void map_that_is_not_aligned_is_copied(void)
{
	struct fdmabuf_queue *queue;

	given_file("############", 12 * BLOCK);
	given_buffer(true);
	buffer->map = memory + 8;
	buffer->size = BUFFER_SIZE - 8;
	queue = open_queue(FDMABUF_AUTO, CHUNK, 0);
	CHECK_EQUAL(read_part(queue, 0, 0, 12 * BLOCK), 12 * BLOCK);
	check_arrived(0, 8, 12 * BLOCK, 0);
	CHECK_EQUAL(simulation.direct_ios, 0);
	fdmabuf_queue_close(queue);
}

static void pages_are_written_by_direct_io(void)
{
	unsigned char found[12 * BLOCK];
	struct fdmabuf_queue *queue;

	given_file("############", 12 * BLOCK);
	given_buffer(true);
	for (size_t i = 0; i < BUFFER_SIZE; i++)
		memory[i] = content_at(i + 12345);
	queue = open_queue(FDMABUF_AUTO, CHUNK, 0);
	CHECK_EQUAL(write_part(queue, 10, 10, 11 * BLOCK), 11 * BLOCK);
	CHECK_EQUAL(fdmabuf_file_pread(file, found, sizeof(found), 0), sizeof(found));
	CHECK(!memcmp(found, expected, 10) && !memcmp(found + 10, memory + 10, 11 * BLOCK));
	CHECK(!memcmp(found + 11 * BLOCK + 10, expected + 11 * BLOCK + 10, BLOCK - 10));
	CHECK_EQUAL(counters_of_queue(queue).bytes_direct_io, 10 * BLOCK);
	CHECK_EQUAL(counters_of_queue(queue).bytes_copied, BLOCK);
	CHECK_EQUAL(begun, 1);
	CHECK_EQUAL(ended, 1);
	fdmabuf_queue_close(queue);
}

static void scattered_pages_take_one_command(void)
{
	struct fdmabuf_range ranges[6];
	struct fdmabuf_queue *queue;

	given_file("######", 6 * BLOCK);
	given_buffer(true);
	for (unsigned i = 0; i < 6; i++)
		ranges[i] = part(i * BLOCK, (5 - i) * 2 * BLOCK, BLOCK);
	queue = open_queue(FDMABUF_AUTO, 8 * BLOCK, 0);
	CHECK_EQUAL(fdmabuf_read(queue, ranges, 6, 0), 6 * BLOCK);
	for (unsigned i = 0; i < 6; i++)
		CHECK(!memcmp(memory + (5 - i) * 2 * BLOCK, expected + i * BLOCK, BLOCK));
	CHECK_EQUAL(simulation.requests, 1);
	CHECK_EQUAL(simulation.most_pieces, 6);
	fdmabuf_queue_close(queue);
}

static void refused_access_ends_the_transfer(void)
{
	struct fdmabuf_queue *queue;

	given_file("############", 12 * BLOCK);
	given_buffer(true);
	access_fails = true;
	queue = open_queue(FDMABUF_AUTO, CHUNK, 0);
	CHECK_EQUAL(read_part(queue, 0, 0, 12 * BLOCK), -EIO);
	CHECK(strstr(fdmabuf_error(), "refuses the access"));
	check_arrived(0, 0, 0, 0);
	fdmabuf_queue_close(queue);
}

static void token_that_is_refused_means_direct_io(void)
{
	struct fdmabuf_queue *queue;
	struct fdmabuf_result result;

	given_file("############", 12 * BLOCK);
	given_buffer(true);
	buffer->dmabuf_fd = 0;
	simulation.register_error_later = EACCES;
	simulation.revoke_request = 2;
	queue = open_queue(FDMABUF_AUTO, CHUNK, 0);
	CHECK_EQUAL(read_part(queue, 0, 0, 12 * BLOCK), 12 * BLOCK);
	check_arrived(0, 0, 12 * BLOCK, 0);
	CHECK(counters_of_queue(queue).bytes_direct_io > 0);
	CHECK_EQUAL(counters_of_queue(queue).bytes_copied, 0);
	result = check_part(queue, 0, 0, BLOCK);
	CHECK_EQUAL(result.path, FDMABUF_DIRECT_IO);
	CHECK_EQUAL(result.reason, FDMABUF_REASON_REVOKED);
	fdmabuf_queue_close(queue);
}

/* ---------------------------------------------------------- the page cache */

static void each_run_comes_from_where_it_is(bool has_pages)
{
	struct fdmabuf_queue *queue;

	given_file("########################", 24 * BLOCK);
	given_buffer(has_pages);
	simulation.cached = "##..###.........###....#";
	queue = open_queue(FDMABUF_AUTO, 12 * BLOCK, 0);
	CHECK_EQUAL(read_part(queue, 0, 0, 24 * BLOCK), 24 * BLOCK);
	check_arrived(0, 0, 24 * BLOCK, 0);
	CHECK_EQUAL(counters_of_queue(queue).bytes_cached, 9 * BLOCK);
	CHECK_EQUAL(counters_of_queue(queue).bytes_copied, (has_pages ? 9 : 24) * BLOCK);
	CHECK_EQUAL(counters_of_queue(queue).bytes_direct_io, has_pages ? 15 * BLOCK : 0);
	CHECK_EQUAL(counters_of_queue(queue).requests, 4);
	CHECK_EQUAL(counters_of_queue(queue).retries, 0);
	CHECK_EQUAL(begun, has_pages);
	CHECK_EQUAL(ended, has_pages);
	fdmabuf_queue_close(queue);
}

static void cached_runs_go_to_pages(void)
{
	each_run_comes_from_where_it_is(true);
}

static void cached_runs_go_through_bounce_memory(void)
{
	each_run_comes_from_where_it_is(false);
}

static void file_may_end_in_what_is_cached(void)
{
	struct fdmabuf_queue *queue;

	given_file("########", 7 * BLOCK + 100);
	given_buffer(true);
	simulation.cached = "....####";
	queue = open_queue(FDMABUF_AUTO, CHUNK, 0);
	CHECK_EQUAL(fdmabuf_read(queue, &(struct fdmabuf_range){ file, 0, buffer, 0, 9 * BLOCK },
				 1, FDMABUF_WHOLE_BLOCKS), 7 * BLOCK + 100);
	check_arrived(0, 0, 7 * BLOCK + 100, 0);
	CHECK_EQUAL(counters_of_queue(queue).bytes_cached, 3 * BLOCK + 100);
	fdmabuf_queue_close(queue);
}

/* Holes are zeros in the page cache as well as on the device. */
static void holes_are_read_as_zeros(void)
{
	struct fdmabuf_queue *queue;

	given_file("##..##..##..##..", 16 * BLOCK);
	given_buffer(true);
	simulation.cached = "#######.";
	queue = open_queue(FDMABUF_AUTO, CHUNK, 0);
	CHECK_EQUAL(read_part(queue, 0, 0, 16 * BLOCK), 16 * BLOCK);
	check_arrived(0, 0, 16 * BLOCK, 0);
	fdmabuf_queue_close(queue);
}

/* What was cached when the queue asked may have gone when it reads. */
static void pages_that_have_gone_are_read_from_the_device(void)
{
	for (unsigned has_pages = 0; has_pages < 2; has_pages++) {
		struct fdmabuf_queue *queue;

		given_file("########", 8 * BLOCK);
		given_buffer(has_pages);
		simulation.cached = "########";
		simulation.cache_is_short = true;
		queue = open_queue(FDMABUF_AUTO, CHUNK, 0);
		CHECK_EQUAL(read_part(queue, 0, 0, 8 * BLOCK), 8 * BLOCK);
		check_arrived(0, 0, 8 * BLOCK, 0);
		CHECK(counters_of_queue(queue).requests >= 2);
		fdmabuf_queue_close(queue);
	}
}

static void bounce_that_was_asked_for_takes_what_is_cached(void)
{
	struct fdmabuf_queue *queue;

	given_file("########", 8 * BLOCK);
	given_buffer(true);
	simulation.cached = "########";
	queue = open_queue(FDMABUF_BOUNCE, CHUNK, 0);
	CHECK_EQUAL(read_part(queue, 0, 3, 8 * BLOCK), 8 * BLOCK);
	check_arrived(0, 3, 8 * BLOCK, 0);
	CHECK_EQUAL(counters_of_queue(queue).bytes_cached, 8 * BLOCK);
	CHECK_EQUAL(counters_of_queue(queue).requests, 0);
	fdmabuf_queue_close(queue);
}

static void direct_reads_and_writes_ask_nothing(void)
{
	struct fdmabuf_queue *queue;

	given_file("########", 8 * BLOCK);
	simulation.cached = "########";
	queue = open_queue(FDMABUF_AUTO, CHUNK, 0);
	CHECK_EQUAL(read_part(queue, 0, 0, 8 * BLOCK), 8 * BLOCK);
	CHECK_EQUAL(write_part(queue, 0, 0, 8 * BLOCK), 8 * BLOCK);
	fdmabuf_queue_close(queue);
	queue = open_queue(FDMABUF_BOUNCE, CHUNK, 0);
	CHECK_EQUAL(write_part(queue, 0, 0, 8 * BLOCK), 8 * BLOCK);
	CHECK_EQUAL(simulation.cache_looks, 0);
	fdmabuf_queue_close(queue);
}

static void error_of_a_copy_ends_the_transfer(void)
{
	static const char *const maps[] = { "########", "" };

	for (unsigned i = 0; i < 2; i++) {
		struct fdmabuf_queue *queue;

		given_file("########", 8 * BLOCK);
		given_buffer(false);
		simulation.cached = maps[i];
		write_fails = true;
		queue = open_queue(FDMABUF_AUTO, CHUNK, 0);
		CHECK_EQUAL(read_part(queue, 0, 0, 8 * BLOCK), -EIO);
		CHECK(strstr(fdmabuf_error(), "the copy failed"));
		fdmabuf_queue_close(queue);
	}
}

/* ----------------------------------------------------------------- threads */

static _Alignas(BLOCK) unsigned char large[LARGE_SIZE];
static char large_map[LARGE_SIZE / BLOCK + 1];

/* Makes a file whose blocks begin with their offsets, and which is cached as @cached says. */
static void given_large_file(const char *cached, bool has_pages)
{
	given_file("", LARGE_SIZE);
	given_buffer(has_pages);
	for (uint64_t at = 0; at < LARGE_SIZE; at += BLOCK)
		CHECK_EQUAL(pwrite(file->handle->fd, &at, sizeof(at), at), sizeof(at));
	memset(large, UNTOUCHED, sizeof(large));
	buffer->map = large;
	buffer->size = LARGE_SIZE;
	for (size_t i = 0; i < LARGE_COUNT; i++)
		memset(large_map + i * LARGE_BLOCKS, cached[i % strlen(cached)], LARGE_BLOCKS);
	simulation.cached = large_map;
}

static void check_large(void)
{
	for (uint64_t at = 0; at < LARGE_SIZE; at += BLOCK)
		CHECK(!memcmp(large + at, &at, sizeof(at)) && !large[at + BLOCK - 1]);
}

/* Returns the number of threads that copy: a sanitizer has threads of its own. */
static unsigned count_threads(void)
{
	char path[300], name[32];
	struct dirent *entry;
	unsigned threads = 0;
	DIR *tasks = opendir("/proc/self/task");

	CHECK(tasks);
	while ((entry = readdir(tasks))) {
		FILE *comm;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
		comm = fopen(path, "re");
		threads += comm && fgets(name, sizeof(name), comm) &&
			   !strcmp(name, "fdmabuf-copy\n");
		if (comm)
			fclose(comm);
	}
	closedir(tasks);
	return threads;
}

static void threads_copy_from_the_page_cache_and_from_bounce_memory(void)
{
	static const char *const maps[] = { "#", ".", "#." };

	for (unsigned i = 0; i < 6; i++) {
		struct fdmabuf_queue *queue;

		given_large_file(maps[i % 3], i < 3);
		queue = open_queue(i == 1 ? FDMABUF_BOUNCE : FDMABUF_AUTO, LARGE, 3);
		CHECK_EQUAL(read_part(queue, 0, 0, LARGE_SIZE), LARGE_SIZE);
		check_large();
		CHECK(count_threads() > 0 && count_threads() <= 3);
		fdmabuf_queue_close(queue);
		CHECK_EQUAL(count_threads(), 0);
	}
}

static void threads_copy_what_is_written(void)
{
	struct fdmabuf_queue *queue;

	given_large_file(".", false);
	for (uint64_t at = 0; at < LARGE_SIZE; at += BLOCK)
		memset(large + at, at / BLOCK, BLOCK);
	queue = open_queue(FDMABUF_AUTO, LARGE, 2);
	CHECK_EQUAL(write_part(queue, 0, 0, LARGE_SIZE), LARGE_SIZE);
	CHECK(count_threads() > 0);
	memset(large, 0, sizeof(large));
	CHECK_EQUAL(fdmabuf_file_pread(file, large, LARGE_SIZE, 0), LARGE_SIZE);
	for (uint64_t at = 0; at < LARGE_SIZE; at++)
		CHECK_EQUAL(large[at], (unsigned char)(at / BLOCK));
	fdmabuf_queue_close(queue);
}

static void no_threads_are_started_where_none_are_wanted(void)
{
	struct fdmabuf_queue *queue;

	given_large_file("#.", false);
	queue = open_queue(FDMABUF_AUTO, LARGE, FDMABUF_COPY_THREADS_NONE);
	CHECK_EQUAL(read_part(queue, 0, 0, LARGE_SIZE), LARGE_SIZE);
	check_large();
	CHECK_EQUAL(count_threads(), 0);
	CHECK(!queue->copiers);
	fdmabuf_queue_close(queue);
}

static struct fdmabuf_transfer *start_large(struct fdmabuf_queue *queue)
{
	const struct fdmabuf_range range = part(0, 0, LARGE_SIZE);

	return start(queue, FDMABUF_READ, &range, 1, 0);
}

static void submit_does_not_wait_for_all_copies(void)
{
	struct fdmabuf_transfer *transfer;
	struct fdmabuf_queue *queue;

	given_large_file("#", true);
	queue = open_queue(FDMABUF_AUTO, CHUNK, FDMABUF_COPY_THREADS_NONE);
	transfer = start_large(queue);
	CHECK_EQUAL(fdmabuf_transfer_state(transfer), FDMABUF_RUNNING);
	wait_for(transfer);
	check_large();
	fdmabuf_transfer_free(transfer);
	fdmabuf_queue_close(queue);
}

static struct fdmabuf_transfer *start_hanging(struct fdmabuf_queue *queue)
{
	struct fdmabuf_transfer *transfer;

	simulation.copies_wait = true;
	transfer = start_large(queue);
	CHECK_EQUAL(fdmabuf_transfer_wait(transfer, 20), -ETIMEDOUT);
	return transfer;
}

static void let_copies_go_on(void)
{
	__atomic_store_n(&simulation.copies_wait, false, __ATOMIC_RELAXED);
}

static void *let_copies_go_on_later(void *unused)
{
	(void)unused;
	usleep(50000);
	let_copies_go_on();
	return NULL;
}

static void cancelling_waits_for_threads(void)
{
	struct fdmabuf_transfer *transfer;
	struct fdmabuf_queue *queue;
	pthread_t later;

	given_large_file("#", true);
	queue = open_queue(FDMABUF_AUTO, LARGE, 2);
	transfer = start_hanging(queue);
	CHECK_EQUAL(fdmabuf_transfer_cancel(transfer, 20), -ETIMEDOUT);
	CHECK_EQUAL(fdmabuf_transfer_state(transfer), FDMABUF_CANCELLING);
	CHECK(!pthread_create(&later, NULL, let_copies_go_on_later, NULL));
	CHECK_EQUAL(fdmabuf_transfer_wait(transfer, -1), 0);
	CHECK_EQUAL(fdmabuf_transfer_bytes(transfer), -ECANCELED);
	/* What the threads had is there, and no more. */
	CHECK(result_of_range(transfer, 0).done <= 4 * (uint64_t)LARGE);
	pthread_join(later, NULL);
	fdmabuf_transfer_free(transfer);
	fdmabuf_queue_close(queue);
}

/* What has reached the bounce memory has not reached the file. */
static void cancelled_writes_are_not_overstated(void)
{
	struct fdmabuf_transfer *transfer;
	struct fdmabuf_range range;
	struct fdmabuf_queue *queue;

	given_large_file(".", false);
	range = part(0, 0, LARGE_SIZE);
	queue = open_queue(FDMABUF_AUTO, LARGE, 2);
	simulation.copies_wait = true;
	transfer = start(queue, FDMABUF_WRITE, &range, 1, 0);
	CHECK_EQUAL(fdmabuf_transfer_cancel(transfer, 0), 0);
	let_copies_go_on();
	CHECK_EQUAL(fdmabuf_transfer_wait(transfer, -1), 0);
	CHECK_EQUAL(fdmabuf_transfer_bytes(transfer), -ECANCELED);
	CHECK_EQUAL(result_of_range(transfer, 0).done, 0);
	CHECK_EQUAL(simulation.requests, 0);
	fdmabuf_transfer_free(transfer);
	fdmabuf_queue_close(queue);
}

static void closing_waits_for_threads(void)
{
	struct fdmabuf_transfer *transfer;
	struct fdmabuf_queue *queue;
	pthread_t later;

	given_large_file("#", true);
	queue = open_queue(FDMABUF_AUTO, LARGE, 2);
	transfer = start_hanging(queue);
	CHECK(!pthread_create(&later, NULL, let_copies_go_on_later, NULL));
	fdmabuf_queue_close(queue);
	pthread_join(later, NULL);
	CHECK_EQUAL(count_threads(), 0);
	CHECK_EQUAL(fdmabuf_transfer_bytes(transfer), -ECANCELED);
	fdmabuf_transfer_free(transfer);
}

static void child_leaves_the_threads_to_its_parent(void)
{
	struct fdmabuf_transfer *transfer;
	struct fdmabuf_queue *queue;
	pid_t child;
	int status;

	given_large_file("#", true);
	queue = open_queue(FDMABUF_AUTO, LARGE, 2);
	transfer = start_hanging(queue);
	child = fork();
	if (!child) {
		CHECK_EQUAL(count_threads(), 0);
		CHECK_EQUAL(fdmabuf_transfer_wait(transfer, -1), -ECHILD);
		fdmabuf_transfer_free(transfer);
		fdmabuf_queue_close(queue);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && !status);
	let_copies_go_on();
	wait_for(transfer);
	check_large();
	fdmabuf_transfer_free(transfer);
	fdmabuf_queue_close(queue);
}

static void event_loop_sees_what_threads_have_done(void)
{
	for (unsigned early = 0; early < 2; early++) {
		struct fdmabuf_transfer *transfer;
		struct fdmabuf_queue *queue;
		struct pollfd readable = { .events = POLLIN };

		given_large_file("#", true);
		queue = open_queue(FDMABUF_AUTO, LARGE, 2);
		if (early)
			readable.fd = fdmabuf_queue_fd(queue);
		transfer = start_large(queue);
		readable.fd = fdmabuf_queue_fd(queue);
		while (!fdmabuf_queue_poll(queue))
			CHECK_EQUAL(poll(&readable, 1, 5000), 1);
		CHECK_EQUAL(fdmabuf_transfer_bytes(transfer), LARGE_SIZE);
		CHECK(fdmabuf_queue_next(queue) == transfer);
		CHECK_EQUAL(fdmabuf_queue_poll(queue), 0);
		CHECK_EQUAL(poll(&readable, 1, 0), 0);
		check_large();
		fdmabuf_transfer_free(transfer);
		fdmabuf_queue_close(queue);
	}
}

static void error_of_a_thread_ends_the_transfer(void)
{
	static const char *const maps[] = { "#", "." };

	for (unsigned i = 0; i < 2; i++) {
		struct fdmabuf_queue *queue;

		given_large_file(maps[i], false);
		write_fails = true;
		queue = open_queue(FDMABUF_AUTO, LARGE, 2);
		CHECK_EQUAL(read_part(queue, 0, 0, LARGE_SIZE), -EIO);
		CHECK(strstr(fdmabuf_error(), "the copy failed"));
		fdmabuf_queue_close(queue);
	}
}

static void broken_ring_waits_for_threads(void)
{
	struct fdmabuf_queue *queue;

	given_large_file("#.", true);
	simulation.break_request = 2;
	queue = open_queue(FDMABUF_AUTO, LARGE, 2);
	CHECK_EQUAL(read_part(queue, 0, 0, LARGE_SIZE), -EBADF);
	fdmabuf_queue_close(queue);
}

/* ---------------------------------------------------------- all of it mixed */

static unsigned random_rounds = 1500;

static void any_range_comes_right_whatever_is_cached(void)
{
	unsigned long long random = 7;
	char cached[33] = "";

	given_file("..##..#.######....#####.#.######", 31 * BLOCK + 700);
	for (unsigned round = 0; round < random_rounds; round++) {
		uint64_t from = next_random(&random) % (32 * BLOCK), size = 31 * BLOCK + 700;
		uint64_t length = next_random(&random) % (32 * BLOCK);
		uint64_t at = next_random(&random) % 3 ?
			      from % BLOCK + BLOCK * (next_random(&random) % 30) :
			      next_random(&random) % (30 * BLOCK);
		uint64_t arriving = from < size ? min_u64(length, size - from) : 0;
		struct fdmabuf_queue *queue;

		given_buffer(next_random(&random) % 2);
		memset(memory, UNTOUCHED, sizeof(memory));
		for (unsigned i = 0; i < 32; i++)
			cached[i] = next_random(&random) % 3 ? '#' : '.';
		simulation.cached = next_random(&random) % 4 ? cached : NULL;
		simulation.cache_is_short = next_random(&random) % 4 == 0;
		simulation.short_results = next_random(&random) % 2;
		simulation.again_percent = next_random(&random) % 2 ? 30 : 0;
		simulation.no_direct_pages = next_random(&random) % 4 == 0;
		queue = open_queue(next_random(&random) % 4 ? FDMABUF_AUTO : FDMABUF_BOUNCE,
				   CHUNK, 0);
		CHECK_EQUAL(read_part(queue, from, at, length), arriving);
		check_arrived(from, at, arriving, 0);
		CHECK_EQUAL(begun, ended);
		CHECK_EQUAL(simulation.in_flight, 0);
		fdmabuf_queue_close(queue);
	}
}

/* Returns the kernel's policy for the place of the bounce memory that the queue has. */
static int policy_of(const struct fdmabuf_queue *queue)
{
	int policy = -1;

	if (syscall(SYS_get_mempolicy, &policy, NULL, 0, queue->host, MPOL_F_ADDR))
		CHECK_EQUAL(errno, ENOSYS);	/* a kernel without NUMA */
	return policy;
}

static void bounce_memory_is_near_the_device(void)
{
	static const struct { int node, policy; } cases[] = {
		{ -1, MPOL_DEFAULT }, { 0, MPOL_PREFERRED }, { 64, MPOL_DEFAULT },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fdmabuf_queue *queue;
		int policy;

		given_file("####", 4 * BLOCK);
		given_buffer(false);
		buffer->numa_node = cases[i].node;
		queue = open_queue(FDMABUF_BOUNCE, CHUNK, 0);
		CHECK_EQUAL(read_part(queue, 0, 0, 4 * BLOCK), 4 * BLOCK);
		policy = policy_of(queue);
		CHECK(policy == cases[i].policy || policy == -1);
		fdmabuf_queue_close(queue);
	}
}

int main(int argc, char **argv)
{
	if (argc > 1)
		random_rounds = atoi(argv[1]);
	RUN(bounce_memory_is_near_the_device);
	RUN(pages_are_read_by_direct_io);
	RUN(partial_blocks_are_copied_beside_direct_io);
	RUN(offsets_that_differ_are_copied);
	RUN(refused_direct_io_is_copied);
	RUN(other_errors_of_direct_io_end_the_transfer);
	RUN(asked_for_bounce_or_direct_is_no_direct_io);
	RUN(map_that_is_not_aligned_is_copied);
	RUN(pages_are_written_by_direct_io);
	RUN(scattered_pages_take_one_command);
	RUN(refused_access_ends_the_transfer);
	RUN(token_that_is_refused_means_direct_io);
	RUN(cached_runs_go_to_pages);
	RUN(cached_runs_go_through_bounce_memory);
	RUN(file_may_end_in_what_is_cached);
	RUN(holes_are_read_as_zeros);
	RUN(pages_that_have_gone_are_read_from_the_device);
	RUN(bounce_that_was_asked_for_takes_what_is_cached);
	RUN(direct_reads_and_writes_ask_nothing);
	RUN(error_of_a_copy_ends_the_transfer);
	RUN(threads_copy_from_the_page_cache_and_from_bounce_memory);
	RUN(threads_copy_what_is_written);
	RUN(no_threads_are_started_where_none_are_wanted);
	RUN(submit_does_not_wait_for_all_copies);
	RUN(cancelling_waits_for_threads);
	RUN(cancelled_writes_are_not_overstated);
	RUN(closing_waits_for_threads);
	RUN(child_leaves_the_threads_to_its_parent);
	RUN(event_loop_sees_what_threads_have_done);
	RUN(error_of_a_thread_ends_the_transfer);
	RUN(broken_ring_waits_for_threads);
	RUN(any_range_comes_right_whatever_is_cached);
	remove_given();
	return 0;
}
