/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Direct I/O: between the file and the pages of the buffer with O_DIRECT, without a token. */
#include <errno.h>

#include "queue/path.h"

void direct_io_prepare(struct request *request, struct iovec *pieces, struct ring_command *command)
{
	const struct pair *pair = request->extent->use->pair;
	bool writes = request->transfer->direction == FDMABUF_WRITE;
	uint64_t length = request_run_end(request) - request->position;

	*command = (struct ring_command){
		.kind = writes ? RING_WRITE : RING_READ,
		.fd = pair->handle->fd,
		.file_offset = request->position,
		.slot = RING_SLOT_NONE,
		.pieces = pieces ? pieces : &request->one,
	};
	command->count = request_set_pieces(request, length, (uintptr_t)pair->buffer->map,
					    pieces ? pieces : &request->one,
					    pieces ? PIECES_MAX : 1);
	request->is_vector = command->count > 1;
}

static void note_moved(struct fdmabuf_queue *queue, struct request *request, uint32_t bytes)
{
	queue->counters.bytes_direct_io += bytes;
	if (request->transfer->direction == FDMABUF_WRITE)
		direct_note_written(queue, request, bytes);
	else
		request_note_read(request, bytes, request->extent->use->block_size);
}

/* What the filesystem refuses to do with the memory of the buffer, bounce can do with its own. */
static void use_bounce(struct request *request)
{
	request->extent->use->pair->refuses_direct_io = true;
	request->kind = PART_BOUNCE;
}

void direct_io_complete(struct fdmabuf_queue *queue, struct request *request, int result)
{
	if (result > 0)
		note_moved(queue, request, result);
	else if (result == 0 && request->transfer->direction == FDMABUF_READ)
		request_at_eof(request);
	else if (result == 0)
		request_retry(request, EIO);
	else if (result == -EINVAL || result == -EOPNOTSUPP)
		use_bounce(request);
	else
		transfer_fail(request->transfer, request->extent->use, request->position, -result);
}
