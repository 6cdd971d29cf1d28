/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Channels: opens and closes them, and chooses their path. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "internal.h"

/*
 * In requests and in bytes. 16 MiB in flight saturate any one NVMe device; the kernel would split
 * a larger chunk again.
 */
#define DEPTH_DEFAULT 16u
#define CHUNK_DEFAULT (1u << 20)
#define CHUNK_UNIT 4096u	/* bytes; a chunk is a multiple of this many */

/*
 * In ms: long enough for a service manager to restart the server, short enough for a person who
 * waits for the error.
 */
#define MOUNT_WAIT_DEFAULT 10000u

/*
 * In bytes. More bounce memory is not faster, because the copy is slower than the device. The limit
 * of the chunk leaves enough chunks to overlap reading and copying.
 */
#define HOST_MEMORY_MAX (16u << 20)
#define HOST_CHUNK_MAX (4u << 20)

void channel_set_reason(struct fdmabuf_channel *channel, enum fdmabuf_reason reason,
			const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(channel->reason_text, sizeof(channel->reason_text), format, arguments);
	va_end(arguments);
	channel->reason = reason;
}

/* Sets the channel's reason from @error (a positive errno) of a registration. */
static void set_registration_reason(struct fdmabuf_channel *channel, int error)
{
	const char *refuser = channel->file->is_fuse ? "the FUSE server or its backing filesystem" :
						       "the filesystem or its device";

	switch (error) {
	case EOPNOTSUPP:
		channel_set_reason(channel, FDMABUF_REASON_UNSUPPORTED,
				   "%s has no dma-buf tokens for this file", refuser);
		break;
	case ESTALE:
		channel_set_reason(channel, FDMABUF_REASON_REVOKED,
				   "the new token was revoked at once");
		break;
	case EUSERS:
		channel_set_reason(channel, FDMABUF_REASON_FAILED,
				   "the user has as many dma-buf tokens as the sysctl "
				   "user.max_dmabuf_tokens allows");
		break;
	case EACCES:
	case EPERM:
	case EDQUOT:
	case ENOSPC:
	case ETIMEDOUT:
		if (channel->file->is_fuse) {
			channel_set_reason(channel, FDMABUF_REASON_REFUSED, "broker refused: %s",
					   strerror(error));
			break;
		}
		/* fall through */
	default:
		channel_set_reason(channel, FDMABUF_REASON_FAILED, "registration failed: %s",
				   strerror(error));
	}
}

static int register_token(struct fdmabuf_channel *channel)
{
	int ret = ring_register_token(channel->ring, channel->buffer->dmabuf_fd, channel->file->fd);

	if (ret) {
		set_registration_reason(channel, -ret);
		return ret;
	}
	channel_set_reason(channel, FDMABUF_REASON_NONE, "%s", "");
	channel->generation = channel->file->generation;
	channel->counters.tokens++;
	return 0;
}

int channel_register(struct fdmabuf_channel *channel)
{
	if (channel->buffer->dmabuf_fd < 0)
		channel_set_reason(channel, FDMABUF_REASON_NO_DMABUF, "%s",
				   *channel->buffer->no_dmabuf_reason ?
				   channel->buffer->no_dmabuf_reason :
				   "the buffer is ordinary memory, not a dma-buf");
	else if (!channel->file->is_direct)
		channel_set_reason(channel, FDMABUF_REASON_NOT_DIRECT,
				   "file is not O_DIRECT capable");
	else if (channel->ring && !ring_has_tokens(channel->ring))
		channel_set_reason(channel, FDMABUF_REASON_KERNEL, "kernel has no dma-buf tokens");
	else if (channel->ring)
		return register_token(channel);
	return -EOPNOTSUPP;
}

static int choose_path(struct fdmabuf_channel *channel)
{
	int ret;

	if (channel->wanted_path == FDMABUF_BOUNCE) {
		channel_set_reason(channel, FDMABUF_REASON_ASKED, "bounce was asked for");
	} else {
		ret = channel_register(channel);
		if (!ret) {
			channel->path = FDMABUF_DIRECT;
			return 0;
		}
		/* A bounce channel on a mount without a server could read nothing. */
		if (file_server_has_ended(channel->file))
			return fail(ENOTCONN, "%s: the FUSE server of this mount has ended: "
				    "mount it again, and open the file again", channel->file->path);
		if (channel->wanted_path == FDMABUF_DIRECT)
			return fail(-ret, "%s: direct path impossible: %s", channel->file->path,
				    channel->reason_text);
	}

	channel->path = FDMABUF_BOUNCE;
	ret = buffer_prepare_copy(channel->buffer);
	if (ret && channel->wanted_path == FDMABUF_AUTO) {
		char bounce_error[256];

		snprintf(bounce_error, sizeof(bounce_error), "%s", fdmabuf_error());
		return fail(-ret, "%s: neither path is possible; direct: %s; bounce: %s",
			    channel->file->path, channel->reason_text, bounce_error);
	}
	return ret;
}

static int set_up_ring(struct fdmabuf_channel *channel)
{
	int ret = ring_open(channel->depth, &channel->ring);

	if (ret == -ENOMEM)
		return fail(ENOMEM, "io_uring: out of memory: "
			    "raise the limit of locked memory (ulimit -l)");
	/* If sysctl or seccomp forbids io_uring, pread(2) works as well, only slower. */
	if (ret)
		channel_set_reason(channel, FDMABUF_REASON_NO_RING, "io_uring is not available: %s",
				   strerror(-ret));
	return 0;
}

static int set_options(struct fdmabuf_channel *channel,
		       const struct fdmabuf_channel_options *options)
{
	static const struct fdmabuf_channel_options defaults;

	if (!options)
		options = &defaults;
	for (size_t i = 0; i < sizeof(options->reserved) / sizeof(*options->reserved); i++)
		if (options->reserved[i])
			return fail(EINVAL, "reserved options must be zero");
	if (options->path > FDMABUF_BOUNCE)
		return fail(EINVAL, "path %d is not known", (int)options->path);
	channel->wanted_path = options->path;
	channel->depth = options->depth ? options->depth : DEPTH_DEFAULT;
	channel->chunk = options->chunk ? options->chunk : CHUNK_DEFAULT;
	if (channel->depth > FDMABUF_DEPTH_MAX)
		return fail(EINVAL, "depth %u is more than %u", channel->depth, FDMABUF_DEPTH_MAX);
	if (channel->chunk % CHUNK_UNIT || channel->chunk > FDMABUF_CHUNK_MAX)
		return fail(EINVAL, "chunk %u is not a multiple of %u up to %u", channel->chunk,
			    CHUNK_UNIT, FDMABUF_CHUNK_MAX);
	if (channel->chunk % channel->file->block_size)
		return fail(EINVAL, "chunk %u is not a multiple of the file's block size of %u",
			    channel->chunk, channel->file->block_size);

	if (options->mount_wait > FDMABUF_MOUNT_WAIT_MAX &&
	    options->mount_wait != FDMABUF_MOUNT_WAIT_NONE)
		return fail(EINVAL, "a wait of %u ms for the mount is more than %u",
			    options->mount_wait, FDMABUF_MOUNT_WAIT_MAX);
	channel->mount_wait = options->mount_wait ? options->mount_wait : MOUNT_WAIT_DEFAULT;
	if (options->mount_wait == FDMABUF_MOUNT_WAIT_NONE)
		channel->mount_wait = 0;

	channel->host_chunk = min_u64(channel->chunk, HOST_CHUNK_MAX);
	channel->host_depth = min_u64(channel->depth, HOST_MEMORY_MAX / channel->host_chunk);
	return 0;
}

int fdmabuf_channel_open(struct fdmabuf_file *file, struct fdmabuf_buffer *buffer,
			 const struct fdmabuf_channel_options *options,
			 struct fdmabuf_channel **result)
{
	struct fdmabuf_channel *channel = calloc(1, sizeof(*channel));
	int ret;

	if (!channel)
		return fail(ENOMEM, "out of memory");
	channel->file = file;
	channel->buffer = buffer;
	channel->generation = file->generation;
	ret = set_options(channel, options);
	if (ret)
		goto failed;
	channel->requests = calloc(channel->depth, sizeof(*channel->requests));
	if (!channel->requests) {
		ret = fail(ENOMEM, "out of memory");
		goto failed;
	}
	ret = set_up_ring(channel);
	if (!ret)
		ret = choose_path(channel);
	if (ret)
		goto failed;
	*result = channel;
	return 0;

failed:
	fdmabuf_channel_close(channel);
	return ret;
}

void fdmabuf_channel_close(struct fdmabuf_channel *channel)
{
	if (!channel)
		return;
	ring_close(channel->ring);
	if (channel->host_is_pinned)
		channel->buffer->exporter->unpin_host(channel->buffer, channel->host);
	if (channel->host)
		munmap(channel->host, (size_t)channel->host_depth * channel->host_chunk);
	free(channel->requests);
	free(channel);
}

int channel_allocate_host(struct fdmabuf_channel *channel)
{
	size_t size = (size_t)channel->host_depth * channel->host_chunk;
	void *memory;

	if (channel->host)
		return 0;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return fail(ENOMEM, "%zu KiB of bounce memory: out of memory", size >> 10);
	channel->host = memory;
	for (uint32_t i = 0; i < channel->host_depth; i++)
		channel->requests[i].host = channel->host + (size_t)i * channel->host_chunk;
	/* An error is ignored: the memory may be above RLIMIT_MEMLOCK, and reads work without. */
	ring_register_host(channel->ring, channel->host, size);
	if (channel->buffer->exporter->pin_host)
		channel->host_is_pinned =
			channel->buffer->exporter->pin_host(channel->buffer, channel->host, size);
	return 0;
}

enum fdmabuf_path fdmabuf_channel_path(const struct fdmabuf_channel *channel)
{
	return channel->path;
}

enum fdmabuf_reason fdmabuf_channel_reason(const struct fdmabuf_channel *channel)
{
	return channel->reason;
}

const char *fdmabuf_channel_reason_text(const struct fdmabuf_channel *channel)
{
	return channel->reason_text;
}

void fdmabuf_channel_on_progress(struct fdmabuf_channel *channel, fdmabuf_progress *progress,
				 void *argument)
{
	channel->progress = progress;
	channel->progress_argument = argument;
}

bool fdmabuf_channel_is_waiting(const struct fdmabuf_channel *channel)
{
	return channel->is_waiting;
}

void fdmabuf_channel_counters(const struct fdmabuf_channel *channel,
			      struct fdmabuf_counters *counters)
{
	*counters = channel->counters;
}
