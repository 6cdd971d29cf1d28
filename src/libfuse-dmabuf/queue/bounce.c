/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bounce path: between file and host memory with O_DIRECT, or by the page cache for blocks that
 * are written in part, and a copy between host memory and buffer. What the page cache has is copied
 * from there, by direct I/O as well.
 */
#include <errno.h>

#include "base/arithmetic.h"
#include "queue/path.h"

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
	request->one.iov_len = min_u64(align_up(request_run_end(request), block) - from,
				       queue->host_chunk);
}

static void prepare_write(struct fdmabuf_queue *queue, struct request *request,
			  struct ring_command *command)
{
	command->kind = RING_WRITE;
	command->file_offset = request->position;
	request->one.iov_len = min_u64(request->end - request->position, queue->host_chunk);
}

void bounce_set_copy_out(struct fdmabuf_queue *queue, struct request *request)
{
	request->copy = (struct copy){
		.kind = COPY_OUT,
		.bytes = min_u64(request->end - request->position, queue->host_chunk),
		.memory = host_of(queue, request),
	};
}

void bounce_set_cached(struct fdmabuf_queue *queue, struct request *request)
{
	uint64_t bytes = request_run_end(request) - request->position;
	bool has_pages = request->extent->use->pair->buffer->has_pages;

	request->copy = (struct copy){
		.kind = COPY_CACHED,
		.bytes = has_pages ? bytes : min_u64(bytes, queue->host_chunk),
		.memory = has_pages ? NULL : host_of(queue, request),
	};
}

void bounce_prepare(struct fdmabuf_queue *queue, struct request *request,
		   struct ring_command *command)
{
	const struct pair *pair = request->extent->use->pair;
	bool is_plain = request->kind == PART_PLAIN || pair->bounce_is_plain;

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
		prepare_write(queue, request, command);
	else
		prepare_read(queue, request, command);
}

bool bounce_set_copy_in(struct fdmabuf_queue *queue, struct request *request, int result)
{
	uint64_t skip = request->position % request->extent->use->pair->file->block_size;

	if (request->kind != PART_BOUNCE || request->transfer->direction != FDMABUF_READ ||
	    request->transfer->error || result <= 0 || (uint64_t)result <= skip)
		return false;
	request->copy = (struct copy){
		.kind = COPY_IN,
		.bytes = min_u64(result - skip, request->end - request->position),
		.memory = host_of(queue, request) + skip,
	};
	return true;
}

static void note_cached(struct fdmabuf_queue *queue, struct request *request, uint64_t bytes)
{
	bool is_direct_io = request->kind == PART_DIRECT_IO;

	/* The page cache has let the rest go, or the file ends. */
	if (bytes < request->copy.bytes)
		request->run_is_cached = false;
	queue->counters.bytes_cached += bytes;
	queue->counters.bytes_copied += bytes;
	request_note_read(request, bytes, is_direct_io ? request->extent->use->block_size : 1);
}

void bounce_copied(struct fdmabuf_queue *queue, struct request *request, uint64_t bytes)
{
	switch (request->copy.kind) {
	case COPY_CACHED:
		note_cached(queue, request, bytes);
		break;
	case COPY_IN:
		queue->counters.bytes_copied += bytes;
		request_advance(request, bytes);
		break;
	case COPY_OUT:
		request->is_filled = true;
	}
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
		request_at_eof(request);
	/* Some filesystems accept O_DIRECT in open(2) and refuse it in read(2) with EINVAL. */
	else if (result == -EINVAL && pair->handle->is_direct && !request->is_plain)
		pair->bounce_is_plain = true;
	else
		transfer_fail(request->transfer, request->extent->use, request->position, -result);
}
