/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opens a file again after its FUSE server has ended and the mount has returned. */
#include "common/fuse-connection.h"
#include "internal.h"

bool file_server_has_ended(const struct fdmabuf_file *file)
{
	return file->is_fuse && server_has_ended(file->fd);
}

bool file_is_lost(const struct fdmabuf_file *file, int error)
{
	/* A server that is alive may return the same errors for reasons of its own. */
	return fuse_connection_has_ended(error) && file_server_has_ended(file);
}

/*
 * Returns true if @found is on another FUSE mount than @file. Without the mount, the path leads
 * nowhere or to a file below the mountpoint, which is the same file, but without the server, if the
 * source directory is mounted on itself. The old mount keeps its device number as long as a
 * descriptor on it is open, so a new mount has another one.
 */
static bool is_on_new_mount(const struct fdmabuf_file *file, const struct fdmabuf_file *found)
{
	return found->is_fuse && found->device != file->device;
}

/*
 * Returns a negative errno unless @found is the same file, unchanged: a read must not mix bytes of
 * two files, or of two versions of one. The inode numbers are those of the source directory, on
 * every mount. A change shows in size or modification time, unless somebody has set the time back.
 */
static int check_is_unchanged(const struct fdmabuf_file *file, const struct fdmabuf_file *found)
{
	if (found->inode != file->inode)
		return fail(ESTALE, "%s: the mount has returned, but with another file at this "
			    "path (inode %llu, before: %llu): start again", file->path,
			    (unsigned long long)found->inode, (unsigned long long)file->inode);
	if (found->size != file->size)
		return fail(ESTALE, "%s: the mount has returned, but the file has changed "
			    "(%llu bytes, before: %llu): start again", file->path,
			    (unsigned long long)found->size, (unsigned long long)file->size);
	if (found->mtime.tv_sec != file->mtime.tv_sec ||
	    found->mtime.tv_nsec != file->mtime.tv_nsec)
		return fail(ESTALE, "%s: the mount has returned, but the file was written to "
			    "meanwhile: start again", file->path);
	/* The requests are already cut at multiples of the old block size. */
	if (found->is_direct && file->is_direct && found->block_size != file->block_size)
		return fail(ESTALE, "%s: the mount has returned with another block size "
			    "(%u, before: %u): start again", file->path, found->block_size,
			    file->block_size);
	return 0;
}

/* Moves the descriptors of @found to @file, and the old ones to @found, which closes them. */
static void exchange_descriptors(struct fdmabuf_file *file, struct fdmabuf_file *found)
{
	int fd = file->fd, plain_fd = file->plain_fd;

	file->fd = found->fd;
	file->plain_fd = found->plain_fd;
	file->is_direct = found->is_direct;
	file->device = found->device;
	file->generation++;
	found->fd = fd;
	found->plain_fd = plain_fd;
}

int file_reopen(struct fdmabuf_file *file)
{
	struct fdmabuf_file *found;
	int ret = fdmabuf_file_open(file->real_path, &found);

	if (ret)	/* any error may come from a mount that is not complete */
		return -EAGAIN;
	ret = is_on_new_mount(file, found) ? check_is_unchanged(file, found) :
					   fail(EAGAIN, "no new FUSE mount at its path");
	if (!ret)
		exchange_descriptors(file, found);
	fdmabuf_file_close(found);
	return ret;
}
