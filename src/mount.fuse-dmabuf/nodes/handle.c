/* SPDX-License-Identifier: GPL-2.0-or-later */
/* File handles on the mount of the source: makes, compares and opens them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log/log.h"
#include "nodes/handle.h"

/* A descriptor of the mount to open handles with; it must not be O_PATH. -1: no handles. */
static int mount_fd = -1;

struct handle_buffer {
	struct file_handle handle;
	unsigned char bytes[MAX_HANDLE_SZ];
};

static bool read_handle(int fd, struct handle_buffer *buffer)
{
	int mount_id;

	buffer->handle.handle_bytes = sizeof(buffer->bytes);
	return !name_to_handle_at(fd, "", &buffer->handle, &mount_id, AT_EMPTY_PATH);
}

static size_t size_of(const struct file_handle *handle)
{
	return sizeof(*handle) + handle->handle_bytes;
}

struct file_handle *handle_make(int fd)
{
	struct file_handle *handle;
	struct handle_buffer buffer;

	if (mount_fd < 0 || !read_handle(fd, &buffer))
		return NULL;
	handle = malloc(size_of(&buffer.handle));
	if (handle)
		memcpy(handle, &buffer, size_of(&buffer.handle));
	return handle;
}

bool handle_fits(const struct file_handle *handle, int fd)
{
	struct handle_buffer buffer;

	return read_handle(fd, &buffer) && buffer.handle.handle_type == handle->handle_type &&
	       buffer.handle.handle_bytes == handle->handle_bytes &&
	       !memcmp(buffer.handle.f_handle, handle->f_handle, handle->handle_bytes);
}

int handle_open(struct file_handle *handle)
{
	return open_by_handle_at(mount_fd, handle, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

/* Returns true if the root of the source can be opened by its handle. */
static bool handles_work(int root_fd)
{
	struct file_handle *handle = handle_make(root_fd);
	int fd = handle ? handle_open(handle) : -1;

	free(handle);
	if (fd < 0)
		return false;
	close(fd);
	return true;
}

void handles_begin(int root_fd)
{
	mount_fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (mount_fd < 0 || !handles_work(root_fd)) {
		log_info("no file handles on the source: each known file holds a descriptor");
		handles_end();
	}
}

void handles_end(void)
{
	if (mount_fd >= 0)
		close(mount_fd);
	mount_fd = -1;
}
