/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads into host memory and copies: requests stay in flight while the CPU copies. */
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

static void take_bytes(struct transfer *t, struct request *request, uint64_t got)
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

/* Some filesystems take O_DIRECT at open(2) and refuse it at read(2). */
static void go_on_without_o_direct(struct transfer *t)
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
		take_bytes(t, request, result);
	else if (result == -EINVAL && t->channel->file->is_direct &&
		 (!t->channel->bounce_is_plain || request->tries++ == 0))
		go_on_without_o_direct(t);
	else
		transfer_fail(t, request->position, -result);
}

void copy_range(struct transfer *t, uint64_t position, uint64_t end)
{
	struct fdmabuf_channel *channel = t->channel;
	unsigned char piece[64 << 10];	/* small enough for any thread's stack */

	while (position < end && !t->error) {
		size_t length = min_u64(end - position, sizeof(piece));
		int64_t got = fdmabuf_file_pread(channel->file, piece, length, position);

		if (got < 0) {
			transfer_stop(t, got);
			transfer_recover(t);
			continue;
		}
		if (got > 0)
			t->error = fdmabuf_buffer_write(channel->buffer, position + t->shift, piece, got);
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
