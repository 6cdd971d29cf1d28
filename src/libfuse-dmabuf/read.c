/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Implements fdmabuf_channel_read(): cuts a range into requests and keeps them in flight. */
#include <string.h>
#include <time.h>

#include "transfer.h"

/*
 * A request may be submitted again this often in a row without progress. From the ninth try on the
 * tries are 1 ms apart, so a request is given up after about a second.
 */
#define TRIES_MAX 1000u
#define TRIES_WITHOUT_DELAY 8u

void transfer_advance(struct transfer *t, struct request *request, uint64_t bytes)
{
	request->position += bytes;
	request->tries = 0;
	t->done += bytes;
}

void transfer_at_eof(struct transfer *t, struct request *request)
{
	t->eof = min_u64(t->eof, request->position);
	request->end = request->position;
}

void transfer_retry(struct transfer *t, struct request *request, int error)
{
	const struct timespec delay = { .tv_nsec = 1000000 };

	if (++request->tries > TRIES_MAX)
		transfer_fail(t, request->position, error);
	else if (request->tries > TRIES_WITHOUT_DELAY)
		nanosleep(&delay, NULL);
}

void transfer_fail(struct transfer *t, uint64_t position, int error)
{
	const char *cure = "";

	switch (error) {
	case EINVAL:
		cure = ": was O_DIRECT switched off, or is the block size not right?";
		break;
	case ENODEV:
		cure = ": the NVMe device, or the device that owns the buffer, "
		       "is gone or switched off";
		break;
	}
	transfer_stop(t, fail(error, "%s: reading at offset %llu: %s%s", t->channel->file->path,
			      (unsigned long long)position, strerror(error), cure));
}

void transfer_stop(struct transfer *t, int ret)
{
	if (file_is_lost(t->channel->file, -ret))
		t->server_has_ended = true;
	else
		t->error = ret;
}

void transfer_report_progress(struct transfer *t)
{
	struct fdmabuf_channel *channel = t->channel;
	uint64_t total = t->stop - t->start;

	if (!t->error && channel->progress &&
	    channel->progress(channel->progress_argument, min_u64(t->done, total), total))
		t->error = fail(ECANCELED, "%s: the read was cancelled", channel->file->path);
}

/* Requests end at multiples of the chunk: all but the first and the last are whole chunks. */
static void cut_request(struct transfer *t, struct request *request)
{
	uint64_t chunk = t->is_direct ? t->channel->chunk : t->channel->host_chunk;

	request->position = t->cursor;
	request->end = min_u64(t->end, (t->cursor / chunk + 1) * chunk);
	request->tries = 0;
	request->was_submitted = false;
	request->state = REQUEST_READY;
	t->cursor = request->end;
}

static void submit(struct transfer *t, struct request *request)
{
	if (t->is_direct)
		direct_submit(t, request);
	else
		bounce_submit(t, request);
	t->channel->counters.requests++;
	if (request->was_submitted)
		t->channel->counters.retries++;
	request->was_submitted = true;
	request->state = REQUEST_IN_FLIGHT;
	t->in_flight++;
}

static void submit_all(struct transfer *t)
{
	struct fdmabuf_channel *channel = t->channel;
	unsigned depth = t->is_direct ? channel->depth : channel->host_depth;

	for (unsigned i = 0; i < depth; i++) {
		struct request *request = &channel->requests[i];

		if (request->state == REQUEST_FREE && t->cursor < min_u64(t->end, t->eof))
			cut_request(t, request);
		if (request->state == REQUEST_READY)
			submit(t, request);
	}
}

static void complete(struct transfer *t, struct request *request, int result)
{
	t->in_flight--;
	request->state = REQUEST_READY;
	if (!t->error) {
		if (result == -EAGAIN || result == -EINTR)
			transfer_retry(t, request, -result);
		else if (t->is_direct)
			direct_complete(t, request, result);
		else
			bounce_complete(t, request, result);
	}
	if (t->error || request->position >= request->end)
		request->state = REQUEST_FREE;
}

/*
 * Closes the ring, which cancels the requests in flight: without a working ring their completions
 * cannot be waited for.
 */
static void abandon_ring(struct transfer *t, int error)
{
	t->error = fail(error, "io_uring: %s", strerror(error));
	ring_close(t->channel->ring);
	t->channel->ring = NULL;
	t->in_flight = 0;
}

/* Waits for at least one completion, and handles all that there are. */
static void handle_completions(struct transfer *t)
{
	struct request *request;
	int result, ret = ring_wait(t->channel->ring);

	if (ret && ret != -EINTR && ret != -EAGAIN && ret != -EBUSY) {
		abandon_ring(t, -ret);
		return;
	}
	while (ring_next(t->channel->ring, (void **)&request, &result))
		complete(t, request, result);
	transfer_report_progress(t);
}

static void read_with_ring(struct transfer *t)
{
	if (!t->is_direct) {
		t->error = channel_allocate_host(t->channel);
		if (t->error)
			return;
	}
	for (;;) {
		if (!t->in_flight)
			transfer_recover(t);
		if (!t->error && !transfer_needs_recovery(t))
			submit_all(t);
		if (!t->in_flight && (t->error || !transfer_needs_recovery(t)))
			break;
		if (t->in_flight)
			handle_completions(t);
	}
}

/*
 * Sets the range of the direct requests, which read whole blocks only. The partial blocks at the
 * ends are left to be copied, unless the caller allows FDMABUF_WHOLE_BLOCKS and the buffer has room
 * for them.
 */
static void set_direct_range(struct transfer *t, bool whole_blocks)
{
	uint64_t block = t->channel->file->block_size;
	uint64_t last = align_up(t->stop, block);

	t->cursor = align_up(t->start, block);
	t->end = align_down(t->stop, block);
	if (!whole_blocks)
		return;
	/* The first block always fits: file and buffer offset are equal modulo the block size. */
	t->cursor = align_down(t->start, block);
	if (last + t->shift <= t->channel->buffer->size)
		t->end = last;
}

static void read_direct(struct transfer *t, bool whole_blocks)
{
	set_direct_range(t, whole_blocks);
	if (t->channel->wanted_path == FDMABUF_DIRECT &&
	    (t->cursor > t->start || t->end < t->stop)) {
		t->error = fail(EINVAL, "%s: the range has partial blocks of %u bytes that would "
				"have to be copied: align the range, or allow FDMABUF_WHOLE_BLOCKS "
				"and leave room for whole blocks in the buffer",
				t->channel->file->path, t->channel->file->block_size);
		return;
	}
	if (t->cursor >= t->end) {
		copy_range(t, t->start, t->stop);
		return;
	}
	if (t->cursor > t->start)
		copy_range(t, t->start, t->cursor);
	if (t->end < t->stop && !t->error)
		copy_range(t, t->end, t->stop);
	if (!t->error)
		read_with_ring(t);
}

static void read_bounce(struct transfer *t)
{
	t->cursor = t->start;
	t->end = t->stop;
	if (t->channel->ring)
		read_with_ring(t);
	else
		copy_range(t, t->start, t->stop);
}

/* Frees the requests that an error has left incomplete: the next transfer must not submit them. */
static void free_requests(struct fdmabuf_channel *channel)
{
	for (uint32_t i = 0; i < channel->depth; i++)
		channel->requests[i].state = REQUEST_FREE;
}

static void run_transfer(struct transfer *t, bool whole_blocks)
{
	struct fdmabuf_channel *channel = t->channel;
	bool is_congruent = t->shift % channel->file->block_size == 0;

	t->is_direct = channel->path == FDMABUF_DIRECT && channel->ring && is_congruent;
	if (t->is_direct)
		read_direct(t, whole_blocks);
	else if (channel->wanted_path != FDMABUF_DIRECT)
		read_bounce(t);
	else if (!channel->ring)
		t->error = fail(EIO, "%s: the channel is broken: open a new one",
				channel->file->path);
	else
		t->error = fail(EINVAL, "%s: the offsets in file and buffer must be equal modulo "
				"the block size of %u for a direct read", channel->file->path,
				channel->file->block_size);
}

int64_t fdmabuf_channel_read(struct fdmabuf_channel *channel, uint64_t file_offset,
			     uint64_t buffer_offset, uint64_t length, unsigned flags)
{
	uint64_t size = file_refresh(channel->file);
	uint64_t buffer_size = fdmabuf_buffer_size(channel->buffer);
	uint64_t direct_before = channel->counters.bytes_direct;
	struct transfer t = { .channel = channel, .eof = UINT64_MAX };

	if (flags & ~FDMABUF_WHOLE_BLOCKS)
		return fail(EINVAL, "flags %#x are not known", flags);
	if (file_offset >= size || !length)
		return 0;
	length = min_u64(length, size - file_offset);
	if (length > buffer_size || buffer_offset > buffer_size - length)
		return fail(EFAULT, "%s: %llu bytes at offset %llu do not fit into the buffer of "
			    "%llu bytes", channel->file->path, (unsigned long long)length,
			    (unsigned long long)buffer_offset, (unsigned long long)buffer_size);

	t.start = file_offset;
	t.stop = file_offset + length;
	t.shift = buffer_offset - file_offset;
	run_transfer(&t, flags & FDMABUF_WHOLE_BLOCKS);
	if (!t.error && channel->buffer->exporter->flush &&
	    channel->counters.bytes_direct != direct_before)
		t.error = channel->buffer->exporter->flush(channel->buffer);
	if (t.error) {
		free_requests(channel);
		return t.error;
	}
	t.stop = min_u64(t.stop, t.eof);
	return t.stop > t.start ? t.stop - t.start : 0;
}
