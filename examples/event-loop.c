/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loads files while it does something else: one poll(2) waits for names on standard input and for
 * transfers, of which there can be any number at the same time. Prints a line for each file when it
 * has been loaded.
 *
 *	cc -o event-loop event-loop.c $(pkg-config --cflags --libs fuse-dmabuf)
 *	ls *.safetensors | ./event-loop cuda:0
 *
 * The exporter is "memory" unless the argument names another. The program ends at the end of the
 * input, when all files are loaded, with status 1 if one of them could not be.
 */
#define _POSIX_C_SOURCE 200809L
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse-dmabuf.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *exporter = "memory";
static struct fdmabuf_queue *queue;
static unsigned running;	/* transfers */
static int status;

/* A file that is being loaded: the data of its transfer. */
struct job {
	struct fdmabuf_buffer *buffer;
	char name[];
};

static void end_job(struct job *job)
{
	fdmabuf_buffer_free(job->buffer);
	free(job);
}

/* Starts to read a file. Returns 0 or a negative errno. */
static int start_reading(struct job *job)
{
	struct fdmabuf_operation operation = { .size = sizeof(operation), .data = job };
	struct fdmabuf_transfer *transfer;
	struct fdmabuf_range range = { 0 };
	int ret = fdmabuf_file_open(job->name, O_RDONLY, 0, &range.file);

	if (ret)
		return ret;
	range.length = fdmabuf_file_size(range.file);
	/* No buffer has 0 bytes, but a file can. */
	ret = fdmabuf_buffer_allocate(exporter, range.length ? range.length : 1, &job->buffer);
	if (!ret) {
		range.buffer = job->buffer;
		operation.direction = FDMABUF_READ;
		operation.flags = FDMABUF_WHOLE_BLOCKS;
		operation.ranges = &range;
		operation.count = 1;
		ret = fdmabuf_submit(queue, &operation, &transfer);
	}
	/* The transfer has a reference of its own. */
	fdmabuf_file_close(range.file);
	return ret;
}

static void start_job(const char *name)
{
	struct job *job = calloc(1, sizeof(*job) + strlen(name) + 1);

	if (!job)
		err(1, "%s", name);
	strcpy(job->name, name);
	if (!start_reading(job)) {
		running++;
		return;
	}
	warnx("%s", fdmabuf_error());
	status = 1;
	end_job(job);
}

/* Reads what standard input has, and starts a job for each line. Returns false at its end. */
static bool take_names(void)
{
	static char text[8192];
	static size_t length;
	ssize_t got = read(STDIN_FILENO, text + length, sizeof(text) - length);
	char *line = text, *end;

	if (got < 0 && errno == EINTR)
		return true;
	if (got < 0)
		err(1, "standard input");
	length += got;
	if (!got && length)		/* the last line has no newline */
		text[length++] = '\n';
	while ((end = memchr(line, '\n', text + length - line))) {
		*end = '\0';
		if (*line)
			start_job(line);
		line = end + 1;
	}
	length -= line - text;
	memmove(text, line, length);
	if (length == sizeof(text))
		errx(1, "standard input: a name is too long");
	return got;
}

/* Takes the transfers that have finished. */
static void take_transfers(void)
{
	struct fdmabuf_transfer *transfer;

	if (fdmabuf_queue_poll(queue) < 0)
		errx(1, "%s", fdmabuf_error());
	while ((transfer = fdmabuf_queue_next(queue))) {
		struct job *job = fdmabuf_transfer_data(transfer);
		int64_t bytes = fdmabuf_transfer_bytes(transfer);

		if (bytes < 0) {
			warnx("%s", fdmabuf_transfer_error(transfer));
			status = 1;
		} else {
			printf("%s: %" PRId64 " bytes\n", job->name, bytes);
			fflush(stdout);
		}
		fdmabuf_transfer_free(transfer);
		end_job(job);
		running--;
	}
}

int main(int argc, char **argv)
{
	struct pollfd wait[2] = { { .fd = STDIN_FILENO, .events = POLLIN }, { .events = POLLIN } };

	if (argc > 2)
		errx(2, "usage: event-loop [EXPORTER]");
	if (argc > 1)
		exporter = argv[1];
	if (fdmabuf_queue_open(NULL, &queue))
		errx(1, "%s", fdmabuf_error());
	wait[1].fd = fdmabuf_queue_fd(queue);
	if (wait[1].fd < 0)
		errx(1, "%s", fdmabuf_error());

	/* poll(2) ignores a descriptor of -1. */
	while (wait[0].fd >= 0 || running) {
		if (poll(wait, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			err(1, "poll");
		}
		if (wait[0].revents && !take_names())
			wait[0].fd = -1;
		if (wait[1].revents)
			take_transfers();
	}
	fdmabuf_queue_close(queue);
	return status;
}
