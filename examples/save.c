/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Saves the content of a buffer to a new file, durably, reads the file into another buffer and
 * compares the two. The size need not be a multiple of anything.
 *
 *	cc -o save save.c $(pkg-config --cflags --libs fuse-dmabuf)
 *	./save checkpoint 10000001 cuda:0
 *
 * The content is the bytes 0 to 250, again and again. The size is 10000001 bytes and the exporter
 * "memory" unless they are given.
 */
#define _POSIX_C_SOURCE 200809L
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse-dmabuf.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE (1 << 20)		/* bytes */

static size_t piece_at(uint64_t position, uint64_t size)
{
	return size - position < PIECE ? size - position : PIECE;
}

/* Stands for what a program computes on the device. */
static int fill(struct fdmabuf_buffer *buffer, uint64_t size)
{
	static unsigned char piece[PIECE];
	int ret = 0;

	for (uint64_t at = 0; at < size && !ret; at += PIECE) {
		for (size_t i = 0; i < PIECE; i++)
			piece[i] = (at + i) % 251;
		ret = fdmabuf_buffer_write(buffer, at, piece, piece_at(at, size));
	}
	return ret;
}

/* Returns 0 if the buffers are equal, 1 if they differ, or a negative errno. */
static int compare(struct fdmabuf_buffer *a, struct fdmabuf_buffer *b, uint64_t size)
{
	static unsigned char of_a[PIECE], of_b[PIECE];
	int ret = 0;

	for (uint64_t at = 0; at < size && !ret; at += PIECE) {
		size_t length = piece_at(at, size);

		ret = fdmabuf_buffer_read(a, at, of_a, length);
		if (!ret)
			ret = fdmabuf_buffer_read(b, at, of_b, length);
		if (!ret)
			ret = memcmp(of_a, of_b, length) != 0;
	}
	return ret;
}

static int64_t save(struct fdmabuf_queue *queue, struct fdmabuf_file *file,
		    struct fdmabuf_buffer *buffer, uint64_t size)
{
	const struct fdmabuf_range range = { file, 0, buffer, 0, size };

	return fdmabuf_write(queue, &range, 1, FDMABUF_SYNC);
}

/* A read at the end of the file returns fewer bytes: an error, for a file that was just written. */
static int64_t load(struct fdmabuf_queue *queue, struct fdmabuf_file *file,
		    struct fdmabuf_buffer *buffer, uint64_t size)
{
	const struct fdmabuf_range range = { file, 0, buffer, 0, size };
	int64_t bytes = fdmabuf_read(queue, &range, 1, FDMABUF_WHOLE_BLOCKS);

	if (bytes >= 0 && (uint64_t)bytes < size)
		errx(1, "the file has only %" PRId64 " bytes", bytes);
	return bytes;
}

int main(int argc, char **argv)
{
	uint64_t size = argc > 2 ? strtoull(argv[2], NULL, 10) : 10000001;
	const char *exporter = argc > 3 ? argv[3] : "memory";
	struct fdmabuf_buffer *buffer, *again;
	struct fdmabuf_queue *queue;
	struct fdmabuf_file *file;
	int difference;

	if (argc < 2 || argc > 4 || !size)
		errx(2, "usage: save FILE [SIZE [EXPORTER]]");
	if (fdmabuf_buffer_allocate(exporter, size, &buffer) ||
	    fdmabuf_buffer_allocate("memory", size, &again) || fill(buffer, size) ||
	    fdmabuf_queue_open(NULL, &queue) ||
	    fdmabuf_file_open(argv[1], O_RDWR | O_CREAT | O_EXCL, 0644, &file))
		errx(1, "%s", fdmabuf_error());

	if (save(queue, file, buffer, size) < 0) {
		warnx("%s", fdmabuf_error());
		unlink(argv[1]);	/* half a file is none */
		return 1;
	}
	if (load(queue, file, again, size) < 0)
		errx(1, "%s", fdmabuf_error());
	difference = compare(buffer, again, size);
	if (difference < 0)
		errx(1, "%s", fdmabuf_error());
	if (difference)
		errx(1, "%s: does not hold what was written", argv[1]);
	printf("%s: %" PRIu64 " bytes saved and compared\n", argv[1], size);

	fdmabuf_file_close(file);
	fdmabuf_queue_close(queue);
	fdmabuf_buffer_free(again);
	fdmabuf_buffer_free(buffer);
	return 0;
}
