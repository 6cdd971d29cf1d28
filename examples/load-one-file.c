/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loads a whole file into memory of an exporter, and writes what the memory then holds to standard
 * output: the simplest use of the library.
 *
 *	cc -o load-one-file load-one-file.c $(pkg-config --cflags --libs fuse-dmabuf)
 *	./load-one-file model.safetensors cuda:0 | cmp - model.safetensors
 *
 * The exporter is "memory", ordinary host memory, unless a second argument names another:
 * fdmabuf_buffer(3) lists them.
 */
#include <err.h>
#include <fcntl.h>
#include <fuse-dmabuf.h>
#include <inttypes.h>
#include <stdio.h>

/* A program uses the memory on the device; this one copies it to where it can be looked at. */
static void print_buffer(struct fdmabuf_buffer *buffer, uint64_t size)
{
	static char piece[1 << 20];

	for (uint64_t at = 0; at < size; at += sizeof(piece)) {
		size_t length = size - at < sizeof(piece) ? size - at : sizeof(piece);

		if (fdmabuf_buffer_read(buffer, at, piece, length))
			errx(1, "%s", fdmabuf_error());
		if (fwrite(piece, 1, length, stdout) < length)
			err(1, "standard output");
	}
	if (fflush(stdout))
		err(1, "standard output");
}

int main(int argc, char **argv)
{
	const char *exporter = argc > 2 ? argv[2] : "memory";
	struct fdmabuf_file *file;
	struct fdmabuf_buffer *buffer;
	struct fdmabuf_queue *queue;
	uint64_t size;
	int64_t bytes;

	if (argc < 2 || argc > 3)
		errx(2, "usage: load-one-file FILE [EXPORTER]");
	if (fdmabuf_file_open(argv[1], O_RDONLY, 0, &file))
		errx(1, "%s", fdmabuf_error());
	size = fdmabuf_file_size(file);
	if (fdmabuf_buffer_allocate(exporter, size, &buffer) || fdmabuf_queue_open(NULL, &queue))
		errx(1, "%s", fdmabuf_error());

	bytes = fdmabuf_read(queue, &(struct fdmabuf_range){ file, 0, buffer, 0, size }, 1,
			     FDMABUF_WHOLE_BLOCKS);
	if (bytes < 0)
		errx(1, "%s", fdmabuf_error());
	if ((uint64_t)bytes < size)
		errx(1, "%s: was truncated while it was read", argv[1]);

	fprintf(stderr, "%" PRId64 " bytes are in the buffer (%s)\n", bytes,
		fdmabuf_buffer_exporter(buffer));
	print_buffer(buffer, size);

	fdmabuf_queue_close(queue);
	fdmabuf_buffer_free(buffer);
	fdmabuf_file_close(file);
	return 0;
}
