/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads, writes and changes files through the page cache, for callers with host memory. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "file/file.h"

/* Sets the text for @error (a positive errno) of @action, and returns a negative errno. */
static int request_error(const struct fdmabuf_file *file, const struct fd_handle *handle,
			 const char *action, int error)
{
	if (handle_is_lost(handle, error))
		return fail(ENOTCONN, "%s: the FUSE server of this mount has ended: "
			    "mount it again, and start again", file->path);
	return fail(error, "%s: %s: %s", file->path, action, strerror(error));
}

static int transfer_error(const struct fdmabuf_file *file, const struct fd_handle *handle,
			  bool writes, uint64_t offset, int error)
{
	if (handle_is_lost(handle, error))
		return request_error(file, handle, "", error);
	return fail(error, "%s: %s at offset %llu: %s", file->path,
		    writes ? "writing" : "reading", (unsigned long long)offset, strerror(error));
}

/*
 * Reads to @read_to or, if that is NULL, writes from @write_from, until @length or the file's end.
 */
static int64_t move(struct fdmabuf_file *file, char *read_to, const char *write_from,
		    size_t length, uint64_t offset)
{
	struct fd_handle *handle = file_get_handle(file);
	int64_t done = 0;

	while ((size_t)done < length) {
		size_t left = length - done;
		uint64_t at = offset + done;
		ssize_t got = read_to ? pread(handle->plain_fd, read_to + done, left, at) :
					pwrite(handle->plain_fd, write_from + done, left, at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			done = transfer_error(file, handle, !read_to, at, errno);
			break;
		}
		if (got == 0)
			break;
		done += got;
	}
	handle_put(handle);
	return done;
}

int64_t fdmabuf_file_pread(struct fdmabuf_file *file, void *data, size_t length, uint64_t offset)
{
	return move(file, data, NULL, length, offset);
}

int64_t fdmabuf_file_pwrite(struct fdmabuf_file *file, const void *data, size_t length,
			    uint64_t offset)
{
	return move(file, NULL, data, length, offset);
}

int fdmabuf_file_resize(struct fdmabuf_file *file, uint64_t size)
{
	struct fd_handle *handle = file_get_handle(file);
	int ret = size > INT64_MAX ? fail(EFBIG, "%s: no file can be that large", file->path) :
		  ftruncate(handle->plain_fd, size) ?
		  request_error(file, handle, "its size cannot be set", errno) : 0;

	if (!ret)
		file_note_size(file, size);
	handle_put(handle);
	return ret;
}

int fdmabuf_file_sync(struct fdmabuf_file *file)
{
	struct fd_handle *handle = file_get_handle(file);
	int ret = fdatasync(handle->plain_fd) ?
		  request_error(file, handle, "what was written cannot be made durable", errno) : 0;

	handle_put(handle);
	return ret;
}
