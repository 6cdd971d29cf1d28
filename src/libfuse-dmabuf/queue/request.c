/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keeps account of requests. */
#include <stdlib.h>

#include "base/arithmetic.h"
#include "common/clock.h"
#include "queue/recover.h"
#include "queue/request.h"

/*
 * A request may be submitted again this often in a row without progress. From the ninth try on the
 * tries are 1 ms apart, so a request is given up after about a second.
 */
#define TRIES_MAX 1000u
#define TRIES_WITHOUT_DELAY 8u

void request_list_init(struct request_list *list)
{
	list->first = NULL;
	list->end = &list->first;
}

void request_list_append(struct request_list *list, struct request *request)
{
	request->next = NULL;
	*list->end = request;
	list->end = &request->next;
}

struct request *request_list_take(struct request_list *list)
{
	struct request *request = list->first;

	if (request) {
		list->first = request->next;
		if (!list->first)
			list->end = &list->first;
	}
	return request;
}

bool request_park(const struct request *request)
{
	struct fdmabuf_transfer *t = request->transfer;
	struct request *parked = malloc(sizeof(*parked));

	if (!parked)
		return false;
	*parked = *request;
	parked->host = NO_HOST;
	parked->is_filled = false;
	parked->next = t->parked;
	t->parked = parked;
	return true;
}

struct request *request_unpark(struct fdmabuf_transfer *t)
{
	struct request **link = &t->parked, *parked;

	while (*link && use_needs_recovery((*link)->extent->use))
		link = &(*link)->next;
	parked = *link;
	if (parked)
		*link = parked->next;
	return parked;
}

void request_advance(struct request *request, uint64_t bytes)
{
	struct fdmabuf_transfer *t = request->transfer;

	request->position += bytes;
	request->tries = 0;
	/* The next run is submitted for the first time. */
	if (request->run_end && request->position >= request->run_end)
		request->was_submitted = false;
	t->moved += bytes;
	while (request->position < request->end &&
	       request->position >= piece_end(t, request->extent, request->piece))
		request->piece++;
}

void request_note_read(struct request *request, uint64_t bytes, uint32_t unit)
{
	struct fdmabuf_file *file = request->extent->use->pair->file;
	uint64_t back;
	unsigned tries = request->tries;

	request_advance(request, bytes);
	if (request->position >= request->end || request->position % unit == 0)
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

void request_at_eof(struct request *request)
{
	struct use *use = request->extent->use;

	use->eof = min_u64(use->eof, request->position);
	transfer_note_missing(request->transfer, request->extent, request->position, request->end);
	request->end = request->position;
}

void request_retry(struct request *request, int error)
{
	if (++request->tries > TRIES_MAX)
		transfer_fail(request->transfer, request->extent->use, request->position, error);
	else if (request->tries > TRIES_WITHOUT_DELAY)
		request->not_before = monotonic_milliseconds() + 1;
}

unsigned request_set_pieces(const struct request *request, uint64_t length, uintptr_t base,
			    struct iovec *pieces, unsigned most)
{
	const struct fdmabuf_transfer *t = request->transfer;
	uint64_t position = request->position, end = position + length;
	unsigned count = 0;

	for (size_t i = request->piece; position < end && count < most; i++) {
		uint64_t part = min_u64(end, piece_end(t, request->extent, i)) - position;
		uint64_t offset = piece_offset(t, i, position);

		pieces[count++] = (struct iovec){ (void *)(base + (uintptr_t)offset), part };
		position += part;
	}
	return count;
}

int request_for_pieces(const struct request *request, uint64_t length, unsigned char *memory,
		       part_function *function)
{
	const struct fdmabuf_transfer *t = request->transfer;
	uint64_t position = request->position, end = position + length;

	for (size_t i = request->piece; position < end; i++) {
		uint64_t part = min_u64(end, piece_end(t, request->extent, i)) - position;
		uint64_t offset = piece_offset(t, i, position);
		int ret = function(request->extent->use->pair->buffer, offset, memory, part);

		if (ret)
			return ret;
		position += part;
		if (memory)
			memory += part;
	}
	return 0;
}
