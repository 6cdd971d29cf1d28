/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Carries copies out, in whichever thread. */
#include <stdlib.h>
#include <string.h>

#include "queue/copy.h"

static int copy_in(struct fdmabuf_buffer *buffer, uint64_t offset, unsigned char *memory,
		   uint64_t length)
{
	if (!buffer->has_pages)
		return fdmabuf_buffer_write(buffer, offset, memory, length);
	memcpy(buffer->map + offset, memory, length);
	return 0;
}

static int copy_out(struct fdmabuf_buffer *buffer, uint64_t offset, unsigned char *memory,
		    uint64_t length)
{
	if (!buffer->has_pages)
		return fdmabuf_buffer_read(buffer, offset, memory, length);
	memcpy(memory, buffer->map + offset, length);
	return 0;
}

/* Reads into the pages of the buffer, or into bounce memory first. */
static int64_t copy_cached(struct request *request)
{
	const struct pair *pair = request->extent->use->pair;
	struct copy *copy = &request->copy;
	struct iovec pieces[PIECES_MAX] = { { copy->memory, copy->bytes } };
	unsigned count = 1;
	uint64_t got;
	int ret;

	if (!copy->memory)
		count = request_set_pieces(request, copy->bytes, (uintptr_t)pair->buffer->map,
					   pieces, PIECES_MAX);
	got = handle_read_cached(pair->handle, pieces, count, request->position);
	if (!copy->memory || !got)
		return got;
	ret = request_for_pieces(request, got, copy->memory, copy_in);
	return ret ? ret : (int64_t)got;
}

void copy_run(struct request *request)
{
	struct copy *copy = &request->copy;

	if (copy->kind == COPY_CACHED)
		copy->result = copy_cached(request);
	else
		copy->result = request_for_pieces(request, copy->bytes, copy->memory,
						  copy->kind == COPY_IN ? copy_in : copy_out);
	if (copy->result < 0)
		copy->error_text = strdup(fdmabuf_error());
	else if (copy->kind != COPY_CACHED)
		copy->result = copy->bytes;
}

int64_t copy_take_result(struct request *request)
{
	struct copy *copy = &request->copy;

	if (copy->result < 0)
		fail(-copy->result, "%s", copy->error_text ? copy->error_text :
		     strerror(-copy->result));
	free(copy->error_text);
	copy->error_text = NULL;
	return copy->result;
}
