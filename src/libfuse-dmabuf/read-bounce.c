/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bounce path: reads into host memory and copies, with requests in flight during a copy. */
#include <string.h>

#include "transfer.h"

void bounce_submit(struct transfer *t, struct request *request)
{
	struct fdmabuf_channel *channel = t->channel;
	uint64_t block = channel->file->block_size;
	uint64_t from = align_down(request->position, block);
	uint64_t length = min_u64(align_up(request->end, block) - from, channel->host_chunk);
	int fd = channel->bounce_is_plain ? channel->file->plain_fd : channel->file->fd;

	ring_read_host(channel->ring, fd, request->host, length, from, request);
}

/* Copies the part of the @got bytes that the request is for into the buffer. */
static void copy_result(struct transfer *t, struct request *request, uint64_t got)
{
	struct fdmabuf_channel *channel = t->channel;
	uint64_t skip = request->position % channel->file->block_size;
	uint64_t bytes;
	int ret;

	if (got <= skip) {
		transfer_at_eof(t, request);
		return;
	}
	bytes = min_u64(got - skip, request->end - request->position);
	ret = fdmabuf_buffer_write(channel->buffer, request->position + t->shift,
				   request->host + skip, bytes);
	if (ret) {
		t->error = ret;
		return;
	}
	channel->counters.bytes_copied += bytes;
	transfer_advance(t, request, bytes);
}

/* Some filesystems accept O_DIRECT in open(2) and refuse it in read(2) with EINVAL. */
static void switch_to_plain_fd(struct transfer *t)
{
	int fd = file_plain_fd(t->channel->file);

	if (fd < 0)
		transfer_stop(t, fd);
	else
		t->channel->bounce_is_plain = true;
}

void bounce_complete(struct transfer *t, struct request *request, int result)
{
	if (result >= 0)
		copy_result(t, request, result);
	else if (result == -EINVAL && t->channel->file->is_direct &&
		 (!t->channel->bounce_is_plain || request->tries++ == 0))
		switch_to_plain_fd(t);
	else
		transfer_fail(t, request->position, -result);
}

void copy_range(struct transfer *t, uint64_t position, uint64_t end)
{
	struct fdmabuf_channel *channel = t->channel;
	unsigned char bytes[64 << 10];	/* small enough for the stack of any thread */

	while (position < end && !t->error) {
		size_t length = min_u64(end - position, sizeof(bytes));
		int64_t got = fdmabuf_file_pread(channel->file, bytes, length, position);

		if (got < 0) {
			transfer_stop(t, got);
			transfer_recover(t);
			continue;
		}
		if (got > 0)
			t->error = fdmabuf_buffer_write(channel->buffer, position + t->shift, bytes,
							got);
		if (t->error)
			return;
		channel->counters.bytes_copied += got;
		position += got;
		t->done += got;
		if ((size_t)got < length) {
			t->eof = min_u64(t->eof, position);
			return;
		}
		transfer_report_progress(t);
	}
}
