/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bounce path: between file and host memory with O_DIRECT, or by the page cache for blocks that
 * are written in part, and a copy between host memory and buffer.
 */
#include <errno.h>

#include "base/arithmetic.h"
#include "queue/path.h"

static int copy_in(struct fdmabuf_buffer *buffer, uint64_t offset, unsigned char *memory,
		   uint64_t length)
{
	return fdmabuf_buffer_write(buffer, offset, memory, length);
}

static int copy_out(struct fdmabuf_buffer *buffer, uint64_t offset, unsigned char *memory,
		    uint64_t length)
{
	return fdmabuf_buffer_read(buffer, offset, memory, length);
}

static unsigned char *host_of(const struct fdmabuf_queue *queue, const struct request *request)
{
	return queue->host + (size_t)request->host * queue->host_chunk;
}

/* Reads whole blocks around the request. */
static void prepare_read(struct fdmabuf_queue *queue, struct request *request,
			 struct ring_command *command)
{
	uint64_t block = request->extent->use->pair->file->block_size;
	uint64_t from = align_down(request->position, block);

	command->kind = RING_READ;
	command->file_offset = from;
	request->one.iov_len = min_u64(align_up(request->end, block) - from, queue->host_chunk);
}

static int prepare_write(struct fdmabuf_queue *queue, struct request *request,
			 struct ring_command *command)
{
	uint64_t length = min_u64(request->end - request->position, queue->host_chunk);
	int ret = request_for_pieces(request, length, host_of(queue, request), copy_out);

	command->kind = RING_WRITE;
	command->file_offset = request->position;
	request->one.iov_len = length;
	return ret;
}

int bounce_prepare(struct fdmabuf_queue *queue, struct request *request,
		   struct ring_command *command)
{
	const struct pair *pair = request->extent->use->pair;
	bool is_plain = request->kind == PART_PLAIN || pair->bounce_is_plain;
	int ret = 0;

	*command = (struct ring_command){
		.fd = is_plain ? pair->handle->plain_fd : pair->handle->fd,
		.slot = RING_SLOT_HOST,
		.pieces = &request->one,
		.count = 1,
	};
	request->is_vector = false;
	request->is_plain = is_plain;
	request->one.iov_base = host_of(queue, request);
	if (request->transfer->direction == FDMABUF_WRITE)
		ret = prepare_write(queue, request, command);
	else
		prepare_read(queue, request, command);
	return ret;
}

/* Copies the part of the @got bytes that the request is for into the buffer. */
static void complete_read(struct fdmabuf_queue *queue, struct request *request, uint64_t got)
{
	uint64_t skip = request->position % request->extent->use->pair->file->block_size;
	uint64_t bytes;
	int ret;

	if (got <= skip) {
		request_at_eof(request);
		return;
	}
	bytes = min_u64(got - skip, request->end - request->position);
	ret = request_for_pieces(request, bytes, host_of(queue, request) + skip, copy_in);
	if (ret) {
		transfer_stop(request->transfer, ret);
		return;
	}
	queue->counters.bytes_copied += bytes;
	request_advance(request, bytes);
}

static void complete_write(struct fdmabuf_queue *queue, struct request *request, uint64_t put)
{
	if (!put) {
		request_retry(request, EIO);
		return;
	}
	queue->counters.bytes_copied += put;
	request_advance(request, put);
	/* What a direct write has left in the middle of a block only the page cache can take. */
	if (request->position % request->extent->use->block_size)
		request->kind = PART_PLAIN;
}

void bounce_complete(struct fdmabuf_queue *queue, struct request *request, int result)
{
	struct pair *pair = request->extent->use->pair;

	if (result >= 0 && request->transfer->direction == FDMABUF_WRITE)
		complete_write(queue, request, result);
	else if (result >= 0)
		complete_read(queue, request, result);
	/* Some filesystems accept O_DIRECT in open(2) and refuse it in read(2) with EINVAL. */
	else if (result == -EINVAL && pair->handle->is_direct && !request->is_plain)
		pair->bounce_is_plain = true;
	else
		transfer_fail(request->transfer, request->extent->use, request->position, -result);
}
