/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command "fuse-dmabuf load": checks a file, reads it into a destination, verifies the copy. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "complain.h"
#include "exit-code.h"
#include "fuse-dmabuf.h"
#include "interrupt.h"
#include "load.h"
#include "options.h"
#include "progress.h"
#include "safetensors.h"
#include "summary.h"
#include "verify.h"

/* The state of one load; release() frees its objects. */
struct load {
	struct load_options options;
	struct fdmabuf_file *file;
	struct safetensors *table;
	struct fdmabuf_buffer *buffer;
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *transfer;
	uint64_t size;
	bool has_said_why;	/* it takes a while after a signal */
	struct load_result result;
};

static void release(struct load *load)
{
	fdmabuf_transfer_free(load->transfer);
	fdmabuf_queue_close(load->queue);
	fdmabuf_buffer_free(load->buffer);
	safetensors_free(load->table);
	fdmabuf_file_close(load->file);
}

/* For a failure before the reading starts: its cause is the input or the set-up. */
static int bad_input(const char *text)
{
	complain("%s", text);
	return EXIT_BAD_INPUT;
}

static int64_t read_header_bytes(void *file, void *data, size_t length, uint64_t offset)
{
	return fdmabuf_file_pread(file, data, length, offset);
}

static int open_file(struct load *load)
{
	char error[SAFETENSORS_ERROR_MAX];

	if (fdmabuf_file_open(load->options.file, O_RDONLY, 0, &load->file))
		return bad_input(fdmabuf_error());
	load->size = fdmabuf_file_size(load->file);
	load->table = safetensors_read(read_header_bytes, load->file, load->size,
				       load->options.file, error);
	if (!load->table)
		return bad_input(*error ? error : fdmabuf_error());
	load->result.tensors = load->table->count;
	return 0;
}

static struct fdmabuf_range whole_file(const struct load *load)
{
	return (struct fdmabuf_range){ load->file, 0, load->buffer, 0, load->size };
}

static int open_destination(struct load *load)
{
	const struct fdmabuf_queue_options options = {
		.size = sizeof(options),
		.path = load->options.path,
		.depth = load->options.depth,
		.chunk = load->options.chunk,
		.mount_wait = load->options.mount_wait,
		.copy_threads = load->options.copy_threads,
		.proof = load->options.proof,
	};
	struct fdmabuf_result check = { .size = sizeof(check) };
	struct fdmabuf_range range;

	/* The buffer has room for the whole last block, which is then read directly as well. */
	if (fdmabuf_buffer_allocate(load->options.into, load->size, &load->buffer) ||
	    fdmabuf_queue_open(&options, &load->queue))
		return bad_input(fdmabuf_error());
	range = whole_file(load);
	if (fdmabuf_queue_check(load->queue, FDMABUF_READ, &range, FDMABUF_WHOLE_BLOCKS, &check))
		return bad_input(fdmabuf_error());
	return 0;
}

/*
 * Zeroes the destination before a load that is verified: memory of a device may still hold an
 * earlier load of the same file, and then a read that moved nothing would not be noticed. Memory of
 * a device can be slow, so the function works in pieces and looks for a signal before each.
 */
static int zero_destination(struct load *load)
{
	const uint64_t piece = 16 << 20;	/* bytes */

	for (uint64_t at = 0; at < load->size; at += piece) {
		uint64_t length = load->size - at < piece ? load->size - at : piece;

		if (caught_signal())
			return 128 + caught_signal();
		if (fdmabuf_buffer_zero(load->buffer, at, length))
			return bad_input(fdmabuf_error());
	}
	return 0;
}

static double timeval_seconds(struct timeval time)
{
	return time.tv_sec + time.tv_usec / 1e6;
}

struct stopwatch {
	struct timespec wall;
	struct rusage usage;
};

static void read_stopwatch(struct stopwatch *watch)
{
	clock_gettime(CLOCK_MONOTONIC, &watch->wall);
	getrusage(RUSAGE_SELF, &watch->usage);
}

static void set_times(struct load_result *result, const struct stopwatch *begin,
		       const struct stopwatch *end)
{
	result->seconds = end->wall.tv_sec - begin->wall.tv_sec +
			  (end->wall.tv_nsec - begin->wall.tv_nsec) / 1e9;
	result->user_seconds = timeval_seconds(end->usage.ru_utime) -
			       timeval_seconds(begin->usage.ru_utime);
	result->system_seconds = timeval_seconds(end->usage.ru_stime) -
				 timeval_seconds(begin->usage.ru_stime);
}

static int on_progress(void *argument, const struct fdmabuf_progress *progress)
{
	struct load *load = argument;

	if (progress->state == FDMABUF_CANCELLING && !load->has_said_why) {
		load->has_said_why = true;
		progress_end();
		complain("waiting for %u requests that the device has: until then it may write to "
			 "the destination", progress->in_flight);
	}
	progress_rename(progress->state == FDMABUF_WAITING ? "waiting for the mount" : "loading");
	progress_show(progress->done, progress->total);
	return caught_signal();
}

/* The load goes on after a warning. */
static void on_warning(void *unused, const char *text)
{
	(void)unused;
	progress_end();
	complain("%s", text);
}

static int start_reading(struct load *load)
{
	const struct fdmabuf_range range = whole_file(load);

	return fdmabuf_submit(load->queue, &(struct fdmabuf_operation){
		.size = sizeof(struct fdmabuf_operation),
		.direction = FDMABUF_READ,
		.flags = FDMABUF_WHOLE_BLOCKS,
		.ranges = &range,
		.count = 1,
		.progress = on_progress,
		.data = load,
	}, &load->transfer);
}

/* Waits for the transfer. Returns the number of bytes, or a negative errno. */
static int64_t finish_reading(struct load *load)
{
	int64_t got;

	fdmabuf_transfer_wait(load->transfer, -1);
	got = fdmabuf_transfer_bytes(load->transfer);
	if (got >= 0)
		progress_show(got, load->size);
	return got;
}

static int read_file(struct load *load)
{
	struct stopwatch begin, end;
	int64_t got;

	progress_begin("loading");
	read_stopwatch(&begin);
	got = start_reading(load);
	if (!got)
		got = finish_reading(load);
	read_stopwatch(&end);
	progress_end();
	if (got == -ECANCELED)
		return 128 + caught_signal();
	if (got < 0)
		return complain("%s", fdmabuf_error());
	if ((uint64_t)got < load->size)
		return complain("%s: was truncated while it was read: start again",
				load->options.file);
	load->result.bytes = got;
	set_times(&load->result, &begin, &end);
	return 0;
}

/* Asks the transfer and the queue what has been done. */
static int set_result(struct load *load)
{
	struct load_result *result = &load->result;

	result->range.size = sizeof(result->range);
	result->counters.size = sizeof(result->counters);
	if (fdmabuf_transfer_result(load->transfer, 0, &result->range) ||
	    fdmabuf_queue_counters(load->queue, &result->counters))
		return complain("%s", fdmabuf_error());
	return 0;
}

static int run(struct load *load)
{
	int ret = open_file(load);

	if (!ret)
		ret = open_destination(load);
	if (!ret && load->options.verify)
		ret = zero_destination(load);
	if (!ret)
		ret = read_file(load);
	if (!ret && load->options.verify)
		ret = verify_tensors(load->file, load->buffer, load->table, load->options.file);
	if (!ret)
		ret = set_result(load);
	return ret ? ret : print_summary(&load->options, &load->result);
}

int load_command(int argc, char **argv)
{
	struct load load = { 0 };
	int ret = parse_load_options(argc, argv, &load.options);

	if (ret || !load.options.file)
		return ret;
	catch_signals();
	fdmabuf_on_warning(on_warning, NULL);
	ret = run(&load);
	release(&load);
	if (ret > 128)
		complain("interrupted by %s", strsignal(caught_signal()));
	return ret;
}
