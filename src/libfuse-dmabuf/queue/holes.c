/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Holes of a file, which the kernel does not read through a token: a request ends short before a
 * hole, and one that starts in a hole fails with ENXIO.
 */
#include <errno.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "queue/path.h"

/*
 * Returns the offset of the next data after a hole at @position, at most @end. Returns @position if
 * the filesystem reports no hole there, and -1 if the file ends at or before @position.
 */
static int64_t find_data(const struct pair *pair, uint64_t position, uint64_t end)
{
	off_t data = lseek(pair->handle->fd, position, SEEK_DATA);

	if (data >= 0)
		return min_u64(data, end);
	if (errno != ENXIO)		/* a filesystem without SEEK_DATA */
		return position;
	return fdmabuf_file_size(pair->file) > position ? (int64_t)end : -1;
}

/*
 * Returns the number of zero bytes at @position, rounded down to whole blocks, or a negative errno.
 * An ordinary read finds the zeros of an unwritten extent, which SEEK_DATA reports as data once
 * somebody has read the extent into the page cache.
 */
static int64_t count_zeros(const struct pair *pair, uint64_t position, uint64_t end)
{
	unsigned char bytes[64 << 10];
	size_t length = min_u64(end - position, sizeof(bytes));
	int64_t zeros = 0;
	ssize_t got = pread(pair->handle->plain_fd, bytes, length, position);
	uint64_t block;

	if (got < 0)
		return -errno;
	while (zeros < got && !bytes[zeros])
		zeros++;
	if (zeros == got && (size_t)got < length &&
	    fdmabuf_file_size(pair->file) <= position + got)
		return end - position;
	block = align_down(position + zeros, pair->file->block_size);
	return block > position ? block - position : align_down(zeros, BLOCK_SIZE_MIN);
}

static int zero_part(struct fdmabuf_buffer *buffer, uint64_t offset, unsigned char *unused,
		     uint64_t length)
{
	(void)unused;
	return fdmabuf_buffer_zero(buffer, offset, length);
}

void skip_hole(struct fdmabuf_queue *queue, struct request *request)
{
	const struct pair *pair = request->extent->use->pair;
	int64_t zeros, data = find_data(pair, request->position, request->end);
	int ret;

	if (data < 0) {
		request_at_eof(request);
		return;
	}
	/* Data begins at a block of the filesystem, at least as large as one of the device. */
	zeros = align_down(data, BLOCK_SIZE_MIN) - request->position;
	if (!zeros)
		zeros = count_zeros(pair, request->position, request->end);
	if (!zeros) {	/* another program has written to the hole */
		request_retry(request, ENXIO);
		return;
	}
	if (zeros < 0) {
		transfer_fail(request->transfer, request->extent->use, request->position, -zeros);
		return;
	}
	ret = request_for_pieces(request, zeros, NULL, zero_part);
	if (ret) {
		transfer_stop(request->transfer, ret);
		return;
	}
	queue->counters.bytes_zeroed += zeros;
	request_advance(request, zeros);
}
