/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The direct path: reads by DMA into the buffer, with the channel's token. */
#include <fcntl.h>

#include "transfer.h"

void direct_submit(struct transfer *t, struct request *request)
{
	ring_read_token(t->channel->ring, t->channel->file->fd, request->position + t->shift,
			request->end - request->position, request->position, request);
}

/*
 * Returns the offset of the next data after a hole at @position, at most @end. Returns @position if
 * the filesystem reports no hole there, and -1 if the file ends at or before @position.
 */
static int64_t find_data(const struct fdmabuf_file *file, uint64_t position, uint64_t end)
{
	off_t data = lseek(file->fd, position, SEEK_DATA);

	if (data >= 0)
		return min_u64(data, end);
	if (errno != ENXIO)		/* a filesystem without SEEK_DATA */
		return position;
	return fdmabuf_file_size(file) > position ? (int64_t)end : -1;
}

/*
 * Returns the number of zero bytes at @position, rounded down to whole blocks, or a negative errno.
 * An ordinary read finds the zeros of an unwritten extent, which SEEK_DATA reports as data once
 * somebody has read the extent into the page cache.
 */
static int64_t count_zeros(struct fdmabuf_file *file, uint64_t position, uint64_t end)
{
	unsigned char bytes[64 << 10];
	size_t length = min_u64(end - position, sizeof(bytes));
	int64_t zeros = 0, got = fdmabuf_file_pread(file, bytes, length, position);
	uint64_t block;

	if (got < 0)
		return got;
	while (zeros < got && !bytes[zeros])
		zeros++;
	if (zeros == got && (size_t)got < length)	/* the file ends here */
		return end - position;
	block = align_down(position + zeros, file->block_size);
	return block > position ? block - position : align_down(zeros, BLOCK_SIZE_MIN);
}

/*
 * Writes the zeros of a hole or an unwritten extent through the exporter. The kernel does not read
 * these through a token: a request ends short before a hole, and one that starts in a hole fails
 * with ENXIO.
 */
static void skip_hole(struct transfer *t, struct request *request)
{
	int64_t zeros, data = find_data(t->channel->file, request->position, request->end);
	int ret;

	if (data < 0) {
		transfer_at_eof(t, request);
		return;
	}
	/* Data begins at a block of the filesystem, at least as large as one of the device. */
	zeros = align_down(data, BLOCK_SIZE_MIN) - request->position;
	if (!zeros)
		zeros = count_zeros(t->channel->file, request->position, request->end);
	if (!zeros) {	/* another program has written to the hole */
		transfer_retry(t, request, ENXIO);
		return;
	}
	ret = zeros < 0 ? zeros :
			  fdmabuf_buffer_zero(t->channel->buffer, request->position + t->shift,
					      zeros);
	if (ret) {
		transfer_stop(t, ret);
		return;
	}
	t->channel->counters.bytes_zeroed += zeros;
	transfer_advance(t, request, zeros);
}

/*
 * Records the bytes of a read. A direct read ends in the middle of a device block only at the end
 * of the file; before a hole it ends with a filesystem block, which may be smaller than block_size.
 */
static void record_bytes(struct transfer *t, struct request *request, uint32_t bytes)
{
	uint64_t block = t->channel->file->block_size;
	unsigned tries = request->tries;

	t->channel->counters.bytes_direct += bytes;
	transfer_advance(t, request, bytes);
	if (request->position >= request->end || request->position % BLOCK_SIZE_MIN == 0)
		return;
	if (fdmabuf_file_size(t->channel->file) <= request->position) {
		transfer_at_eof(t, request);
		return;
	}
	/* The file has grown since the read: read this block again. */
	t->done -= request->position % block;
	request->position = align_down(request->position, block);
	request->tries = tries;
	transfer_retry(t, request, EIO);
}

void direct_complete(struct transfer *t, struct request *request, int result)
{
	if (result > 0)
		record_bytes(t, request, result);
	else if (result == 0)
		transfer_at_eof(t, request);
	else if (result == -ENXIO)
		skip_hole(t, request);
	else if (result == -ESTALE)
		t->token_has_ended = true;
	else
		transfer_fail(t, request->position, -result);
}
