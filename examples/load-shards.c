/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loads any number of files into two buffers by one queue and one operation, and prints for each
 * file where it is, which path it took, and why if it was not the direct one.
 *
 *	cc -o load-shards load-shards.c $(pkg-config --cflags --libs fuse-dmabuf)
 *	./load-shards -e cuda:0 -e cuda:1 model-*.safetensors
 *
 * The first -e names the exporter of the first buffer, and the second one that of the second. The
 * default is "memory". The checksum is Adler-32 of what the buffer holds.
 */
#define _POSIX_C_SOURCE 200809L
#include <err.h>
#include <fcntl.h>
#include <fuse-dmabuf.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BUFFERS 2

static struct fdmabuf_buffer *buffers[BUFFERS];
static uint64_t used[BUFFERS];		/* bytes */

/*
 * Gives a file a place in the emptier buffer. The place begins and ends at a multiple of the block
 * size: the direct path needs the begin, and FDMABUF_WHOLE_BLOCKS fills the last block to its end.
 * Returns the number of the buffer.
 */
static int place(const struct fdmabuf_file *file, struct fdmabuf_range *range)
{
	uint64_t block = fdmabuf_file_block_size(file);
	int number = used[1] < used[0];

	range->length = fdmabuf_file_size(file);
	range->buffer_offset = (used[number] + block - 1) / block * block;
	used[number] = range->buffer_offset + (range->length + block - 1) / block * block;
	return number;
}

static uint32_t checksum(const struct fdmabuf_range *range)
{
	static unsigned char piece[1 << 16];
	uint32_t a = 1, b = 0;

	for (uint64_t at = 0; at < range->length; at += sizeof(piece)) {
		uint64_t left = range->length - at;
		size_t length = left < sizeof(piece) ? left : sizeof(piece);

		if (fdmabuf_buffer_read(range->buffer, range->buffer_offset + at, piece, length))
			errx(1, "%s", fdmabuf_error());
		for (size_t i = 0; i < length; i++) {
			a = (a + piece[i]) % 65521;
			b = (b + a) % 65521;
		}
	}
	return b << 16 | a;
}

/* Returns false if the file is not in its buffer as a whole. */
static bool print_result(const char *name, const struct fdmabuf_transfer *transfer, size_t index,
			 const struct fdmabuf_range *range)
{
	static const char *const paths[] = { "", "direct", "bounce", "direct I/O" };
	struct fdmabuf_result result = { .size = sizeof(result) };

	if (fdmabuf_transfer_result(transfer, index, &result))
		errx(1, "%s", fdmabuf_error());
	if (result.done < range->length) {
		warnx("%s: only %" PRIu64 " of %" PRIu64 " bytes", name, result.done,
		      range->length);
		return false;
	}
	printf("%s: %" PRIu64 " bytes in buffer %d at %" PRIu64 ", checksum %08" PRIx32
	       ", %s%s%s\n", name, range->length, range->buffer == buffers[1],
	       range->buffer_offset, checksum(range),
	       paths[result.path], *result.text ? ": " : "", result.text);
	return true;
}

int main(int argc, char **argv)
{
	const char *exporters[BUFFERS] = { "memory", "memory" };
	struct fdmabuf_operation operation = { .size = sizeof(operation) };
	struct fdmabuf_range *ranges;
	struct fdmabuf_queue *queue;
	struct fdmabuf_transfer *transfer;
	int *numbers;	/* of the buffers */
	int option, count, given = 0, status = 0;

	while ((option = getopt(argc, argv, "e:")) == 'e' && given < BUFFERS)
		exporters[given++] = optarg;
	count = argc - optind;
	if (option != -1 || count < 1)
		errx(2, "usage: load-shards [-e EXPORTER [-e EXPORTER]] FILE...");
	argv += optind;

	ranges = calloc(count, sizeof(*ranges));
	numbers = calloc(count, sizeof(*numbers));
	if (!ranges || !numbers)
		err(1, "%d files", count);
	for (int i = 0; i < count; i++) {
		if (fdmabuf_file_open(argv[i], O_RDONLY, 0, &ranges[i].file))
			errx(1, "%s", fdmabuf_error());
		numbers[i] = place(ranges[i].file, &ranges[i]);
	}
	for (int i = 0; i < BUFFERS; i++)	/* no buffer has 0 bytes, not even an unused one */
		if (fdmabuf_buffer_allocate(exporters[i], used[i] ? used[i] : 1, &buffers[i]))
			errx(1, "%s", fdmabuf_error());
	for (int i = 0; i < count; i++)
		ranges[i].buffer = buffers[numbers[i]];

	operation.direction = FDMABUF_READ;
	operation.flags = FDMABUF_WHOLE_BLOCKS;
	operation.ranges = ranges;
	operation.count = count;
	if (fdmabuf_queue_open(NULL, &queue) || fdmabuf_submit(queue, &operation, &transfer) ||
	    fdmabuf_transfer_wait(transfer, -1))
		errx(1, "%s", fdmabuf_error());
	if (fdmabuf_transfer_bytes(transfer) < 0) {
		warnx("%s", fdmabuf_transfer_error(transfer));
		status = 1;
	}
	for (int i = 0; i < count; i++)
		if (!print_result(argv[i], transfer, i, &ranges[i]))
			status = 1;

	fdmabuf_transfer_free(transfer);
	fdmabuf_queue_close(queue);
	for (int i = 0; i < count; i++)
		fdmabuf_file_close(ranges[i].file);
	for (int i = 0; i < BUFFERS; i++)
		fdmabuf_buffer_free(buffers[i]);
	free(numbers);
	free(ranges);
	return status;
}
