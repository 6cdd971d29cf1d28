/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loads a file in eight ranges until Ctrl-C or a time limit cancels the transfer, and says how far
 * each range has got.
 *
 *	cc -o cancel cancel.c $(pkg-config --cflags --libs fuse-dmabuf)
 *	./cancel model.safetensors 0.5 cuda:0
 *
 * The limit is in seconds; "-" is none. The exporter is "memory" unless the last argument names
 * another. The exit status is 0 if the whole file was loaded, 130 after Ctrl-C, and else 1.
 */
#define _POSIX_C_SOURCE 200809L
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse-dmabuf.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RANGES 8
#define ALIGNMENT (1u << 20)	/* bytes: a multiple of any block size */

static volatile sig_atomic_t caught;

static void note_signal(int number)
{
	caught = number;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/*
 * The library calls this function several times a second, also when nothing moves, and soon after a
 * signal. The transfer is cancelled when it returns non-zero.
 */
static int has_to_end(void *data, const struct fdmabuf_progress *progress)
{
	const double *deadline = data;
	static bool has_said;

	if (progress->state == FDMABUF_CANCELLING && !has_said) {
		has_said = true;
		fprintf(stderr, "waiting for %" PRIu32 " requests that the device has\n",
			progress->in_flight);
	}
	return caught || (*deadline && now() >= *deadline);
}

/* Returns the number of ranges. */
static size_t cut(struct fdmabuf_file *file, struct fdmabuf_buffer *buffer, uint64_t size,
		  struct fdmabuf_range *ranges)
{
	uint64_t length = (size / RANGES / ALIGNMENT + 1) * ALIGNMENT;
	size_t count = 0;

	for (uint64_t at = 0; at < size; at += length)
		ranges[count++] = (struct fdmabuf_range){
			file, at, buffer, at, size - at < length ? size - at : length
		};
	return count;
}

static void print_results(const struct fdmabuf_transfer *transfer,
			  const struct fdmabuf_range *ranges, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct fdmabuf_result result = { .size = sizeof(result) };

		if (fdmabuf_transfer_result(transfer, i, &result))
			errx(1, "%s", fdmabuf_error());
		printf("range %zu: %" PRIu64 " of %" PRIu64 " bytes%s%s\n", i, result.done,
		       ranges[i].length, result.error ? ": " : "",
		       result.error ? strerror(-result.error) : "");
	}
}

int main(int argc, char **argv)
{
	const char *exporter = argc > 3 ? argv[3] : "memory";
	/* SA_RESETHAND: a second Ctrl-C ends the program even if the device does not answer. */
	struct sigaction action = { .sa_handler = note_signal, .sa_flags = SA_RESETHAND };
	struct fdmabuf_operation operation = { .size = sizeof(operation) };
	struct fdmabuf_range ranges[RANGES];
	struct fdmabuf_transfer *transfer;
	struct fdmabuf_buffer *buffer;
	struct fdmabuf_queue *queue;
	struct fdmabuf_file *file;
	double deadline = 0;	/* none */
	uint64_t size;
	int64_t bytes;

	if (argc < 3 || argc > 4)
		errx(2, "usage: cancel FILE SECONDS|- [EXPORTER]");
	if (strcmp(argv[2], "-"))
		deadline = now() + strtod(argv[2], NULL);
	sigaction(SIGINT, &action, NULL);
	if (fdmabuf_file_open(argv[1], O_RDONLY, 0, &file))
		errx(1, "%s", fdmabuf_error());
	size = fdmabuf_file_size(file);
	if (fdmabuf_buffer_allocate(exporter, size, &buffer) || fdmabuf_queue_open(NULL, &queue))
		errx(1, "%s", fdmabuf_error());

	operation.direction = FDMABUF_READ;
	operation.flags = FDMABUF_WHOLE_BLOCKS;
	operation.ranges = ranges;
	operation.count = cut(file, buffer, size, ranges);
	operation.progress = has_to_end;
	operation.data = &deadline;
	if (fdmabuf_submit(queue, &operation, &transfer) || fdmabuf_transfer_wait(transfer, -1))
		errx(1, "%s", fdmabuf_error());

	bytes = fdmabuf_transfer_bytes(transfer);
	if (bytes < 0)
		warnx("%s", fdmabuf_transfer_error(transfer));
	print_results(transfer, ranges, operation.count);

	/* No request is in flight any more: the buffer can be freed, or used for something else. */
	fdmabuf_transfer_free(transfer);
	fdmabuf_queue_close(queue);
	fdmabuf_buffer_free(buffer);
	fdmabuf_file_close(file);
	if (bytes >= 0 && (uint64_t)bytes == size)
		return 0;
	return bytes == -ECANCELED && caught ? 128 + caught : 1;
}
