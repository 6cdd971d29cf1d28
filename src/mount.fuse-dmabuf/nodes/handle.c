/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log/log.h"
#include "nodes/handle.h"

/* Any descriptor of the mount that is not O_PATH. -1: no handles. */
static int mount_fd = -1;

struct room {
	struct file_handle handle;
	unsigned char bytes[MAX_HANDLE_SZ];
};

static bool read_handle(int fd, struct room *room)
{
	int mount_id;

	room->handle.handle_bytes = sizeof(room->bytes);
	return !name_to_handle_at(fd, "", &room->handle, &mount_id, AT_EMPTY_PATH);
}

static size_t size_of(const struct file_handle *handle)
{
	return sizeof(*handle) + handle->handle_bytes;
}

struct file_handle *handle_make(int fd)
{
	struct file_handle *handle;
	struct room room;

	if (mount_fd < 0 || !read_handle(fd, &room))
		return NULL;
	handle = malloc(size_of(&room.handle));
	if (handle)
		memcpy(handle, &room, size_of(&room.handle));
	return handle;
}

bool handle_fits(const struct file_handle *handle, int fd)
{
	struct room room;

	return read_handle(fd, &room) && room.handle.handle_type == handle->handle_type &&
	       room.handle.handle_bytes == handle->handle_bytes &&
	       !memcmp(room.handle.f_handle, handle->f_handle, handle->handle_bytes);
}

int handle_open(struct file_handle *handle)
{
	return open_by_handle_at(mount_fd, handle, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

static bool works(int root_fd)
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
	if (mount_fd < 0 || !works(root_fd)) {
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
