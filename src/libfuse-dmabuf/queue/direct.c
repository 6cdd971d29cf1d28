/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The direct path: DMA between device and buffer, with the pair's token. */
#include <errno.h>
#include <string.h>

#include "queue/path.h"

void direct_prepare(struct fdmabuf_queue *queue, struct request *request, struct iovec *pieces,
		    struct ring_command *command)
{
	const struct fdmabuf_transfer *t = request->transfer;
	const struct pair *pair = request->extent->use->pair;
	unsigned count, most = pieces && queue->has_vectors ? PIECES_MAX : 1;

	if (!pieces)
		pieces = &request->one;
	count = request_set_pieces(request, request->end - request->position, 0, pieces, most);
	request->is_vector = count > 1;
	request->serial = pair->serial;
	*command = (struct ring_command){
		.kind = t->direction == FDMABUF_WRITE ? RING_WRITE : RING_READ,
		.fd = pair->handle->fd,
		.file_offset = request->position,
		.slot = pair->slot,
		.pieces = pieces,
		.count = count,
	};
}

static bool may_copy(const struct fdmabuf_queue *queue, const struct request *request)
{
	return queue->wanted_path == FDMABUF_AUTO &&
	       !buffer_prepare_copy(request->extent->use->pair->buffer);
}

void direct_note_written(struct fdmabuf_queue *queue, struct request *request, uint32_t bytes)
{
	request_advance(request, bytes);
	if (request->position % request->extent->use->block_size == 0)
		return;
	/* No direct write can begin here, unless the block size is only assumed. */
	if (may_copy(queue, request))
		request->kind = PART_PLAIN;
	else if (request->position % BLOCK_SIZE_MIN)
		transfer_fail(request->transfer, request->extent->use, request->position, EIO);
}

static void note_moved(struct fdmabuf_queue *queue, struct request *request, uint32_t bytes)
{
	queue->counters.bytes_direct += bytes;
	queue->vectors_are_proven |= request->is_vector;
	request->extent->use->has_moved_directly = true;
	if (request->transfer->direction == FDMABUF_WRITE)
		direct_note_written(queue, request, bytes);
	else
		/* Before a hole, a read ends with a block that may be smaller than block_size. */
		request_note_read(request, bytes, BLOCK_SIZE_MIN);
}

/* The token may have been made for the other direction only. */
static void note_denied(struct fdmabuf_queue *queue, struct request *request)
{
	struct fdmabuf_transfer *t = request->transfer;
	struct pair *pair = request->extent->use->pair;

	pair->is_denied[t->direction] = true;
	if (may_copy(queue, request))
		request->kind = pair_has_direct_io(pair) ? PART_DIRECT_IO : PART_BOUNCE;
	else
		transfer_stop(t, fail_denied(pair, t->direction));
}

static void fail_direct(struct fdmabuf_queue *queue, struct request *request, int error)
{
	/* What a filesystem cannot do directly at this place of the file, bounce can. */
	if ((error == EOPNOTSUPP || error == EINVAL) && may_copy(queue, request)) {
		request->kind = PART_BOUNCE;
		request->extent->use->was_refused = true;
	} else {
		transfer_fail(request->transfer, request->extent->use, request->position, error);
	}
}

void direct_complete(struct fdmabuf_queue *queue, struct request *request, int result)
{
	struct fdmabuf_transfer *t = request->transfer;
	struct pair *pair = request->extent->use->pair;
	bool reads = t->direction == FDMABUF_READ;

	if (result > 0)
		note_moved(queue, request, result);
	else if (result == 0 && reads)
		request_at_eof(request);
	else if (result == 0)
		request_retry(request, EIO);
	else if (result == -ENXIO && reads)
		skip_hole(queue, request);
	else if (result == -ESTALE && request->serial != pair->serial)
		request_retry(request, ESTALE);		/* there is a newer token already */
	else if (result == -ESTALE)
		pair->token_has_ended = true;
	else if (request->is_vector && !queue->vectors_are_proven &&
		 (result == -EINVAL || result == -EOPNOTSUPP))
		queue->has_vectors = false;		/* tried again, piece by piece */
	else if (result == -EACCES)
		note_denied(queue, request);
	else
		fail_direct(queue, request, -result);
}
