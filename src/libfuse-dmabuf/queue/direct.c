/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The direct path: DMA between device and buffer, with the pair's token. */
#include <errno.h>
#include <string.h>

#include "base/arithmetic.h"
#include "queue/path.h"

void direct_prepare(struct fdmabuf_queue *queue, struct request *request, struct iovec *pieces,
		    struct ring_command *command)
{
	const struct fdmabuf_transfer *t = request->transfer;
	const struct extent *extent = request->extent;
	const struct pair *pair = extent->use->pair;
	uint64_t position = request->position;
	unsigned count = 0, most = pieces && queue->has_vectors ? PIECES_MAX : 1;

	if (!pieces)
		pieces = &request->one;
	for (size_t i = request->piece; position < request->end && count < most; i++) {
		uint64_t part = min_u64(request->end, piece_end(t, extent, i)) - position;

		pieces[count++] = (struct iovec){
			.iov_base = (void *)(uintptr_t)(position - t->pieces[i].from +
							t->pieces[i].buffer_offset),
			.iov_len = part,
		};
		position += part;
	}
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

/*
 * Records the bytes of a read. A direct read ends in the middle of a device block only at the end
 * of the file; before a hole it ends with a filesystem block, which may be smaller than block_size.
 */
static void note_read(struct request *request, uint32_t bytes)
{
	struct fdmabuf_file *file = request->extent->use->pair->file;
	uint64_t back;
	unsigned tries = request->tries;

	request_advance(request, bytes);
	if (request->position >= request->end || request->position % BLOCK_SIZE_MIN == 0)
		return;
	if (fdmabuf_file_size(file) <= request->position) {
		request_at_eof(request);
		return;
	}
	/* The file has grown since the read: read this block again. */
	back = request->position % file->block_size;
	request->transfer->moved -= back;
	request->position -= back;
	request->tries = tries;
	request_retry(request, EIO);
}

/* Records the bytes of a write, which ends early if space or quota run out. */
static void note_written(struct fdmabuf_queue *queue, struct request *request, uint32_t bytes)
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
		note_written(queue, request, bytes);
	else
		note_read(request, bytes);
}

/* The token may have been made for the other direction only. */
static void note_denied(struct fdmabuf_queue *queue, struct request *request)
{
	struct fdmabuf_transfer *t = request->transfer;
	struct pair *pair = request->extent->use->pair;

	pair->is_denied[t->direction] = true;
	if (may_copy(queue, request))
		request->kind = PART_BOUNCE;
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
