/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opens a file again after its FUSE server has ended and the mount has returned. */
#include "base/error.h"
#include "common/fuse-connection.h"
#include "file/file.h"

bool handle_is_lost(const struct fd_handle *handle, int error)
{
	/* The kernel gives EIO to a request that the server was reading when it was killed. */
	bool is_possible = fuse_connection_has_ended(error) || error == EIO;

	/* A server that is alive may return the same errors for reasons of its own. */
	return is_possible && handle->is_fuse && server_has_ended(handle->fd);
}

/*
 * Returns true if @found is on another FUSE mount than @old. Without the mount, the path leads
 * nowhere or to a file below the mountpoint, which is the same file, but without the server, if the
 * source directory is mounted on itself. The old mount keeps its device number as long as a
 * descriptor on it is open, so a new mount has another one.
 */
static bool is_on_new_mount(const struct fd_handle *old, const struct fd_handle *found)
{
	return found->is_fuse && found->device != old->device;
}

/* Returns a negative errno unless @found is the same file, with the same block size. */
static int check_is_same_file(const struct fdmabuf_file *file, const struct fd_handle *old,
			      const struct fd_handle *found)
{
	/* The inode numbers are those of the source directory, on every mount. */
	if (found->inode != old->inode)
		return fail(ESTALE, "%s: the mount has returned, but with another file at this "
			    "path (inode %llu, before: %llu): start again", file->path,
			    (unsigned long long)found->inode, (unsigned long long)old->inode);
	/* The requests are already cut at multiples of the old block size. */
	if (found->is_direct && old->is_direct && found->block_size != file->block_size)
		return fail(ESTALE, "%s: the mount has returned with another block size "
			    "(%u, before: %u): start again", file->path, found->block_size,
			    file->block_size);
	return 0;
}

static int open_on_new_mount(const struct fdmabuf_file *file, const struct fd_handle *old,
			     struct fd_handle **found)
{
	int ret = handle_open(file->real_path, file->access, 0, found);

	if (ret)	/* any error may come from a mount that is not complete */
		return -EAGAIN;
	ret = is_on_new_mount(old, *found) ? check_is_same_file(file, old, *found) :
					     fail(EAGAIN, "no new FUSE mount at its path");
	if (ret)
		handle_put(*found);
	return ret;
}

/* Gives the file the handle @found, unless another thread has replaced @old before. */
static void replace_handle(struct fdmabuf_file *file, const struct fd_handle *old,
			   struct fd_handle *found)
{
	struct fd_handle *unused = found;

	objects_lock();
	if (file->handle == old) {
		unused = file->handle;
		file->handle = found;
	}
	objects_unlock();
	handle_put(unused);
}

int file_reopen(struct fdmabuf_file *file, const struct fd_handle *old,
		struct fd_handle **handle)
{
	struct fd_handle *present = file_get_handle(file), *found;
	int ret;

	if (present == old) {
		handle_put(present);
		/* Two threads may open the file at the same time: open(2) can take long. */
		ret = open_on_new_mount(file, old, &found);
		if (ret)
			return ret;
		replace_handle(file, old, found);
		present = file_get_handle(file);
	}
	*handle = present;
	return 0;
}
