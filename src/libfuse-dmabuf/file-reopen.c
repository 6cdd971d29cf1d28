/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A file whose mount has ended and was mounted again. */
#include "common/fuse-connection.h"
#include "internal.h"

bool file_server_has_ended(const struct fdmabuf_file *file)
{
	return file->is_fuse && server_has_ended(file->fd);
}

bool file_is_lost(const struct fdmabuf_file *file, int error)
{
	/* A server may give these errors itself, for reasons of its own. */
	return fuse_connection_has_ended(error) && file_server_has_ended(file);
}

/*
 * Where the mount is not there, the path leads nowhere, or to what lies below the mountpoint: for a directory
 * that is mounted on itself even to the same file, but without its server. The device number of a mount
 * belongs to it as long as a descriptor on it is open.
 */
static bool is_on_new_mount(const struct fdmabuf_file *file, const struct fdmabuf_file *found)
{
	return found->is_fuse && found->device != file->device;
}

/*
 * The bytes read before and those to come must be of one file, in one state. A server tells the inode numbers of
 * the source directory; size and time tell a change, unless somebody has set the time back.
 */
static int check_same(const struct fdmabuf_file *file, const struct fdmabuf_file *found)
{
	if (found->inode != file->inode)
		return fail(ESTALE, "%s: the mount has returned, but with another file at this path (inode %llu, before: %llu): start again",
			    file->path, (unsigned long long)found->inode, (unsigned long long)file->inode);
	if (found->size != file->size)
		return fail(ESTALE, "%s: the mount has returned, but the file has changed (%llu bytes, before: %llu): start again",
			    file->path, (unsigned long long)found->size, (unsigned long long)file->size);
	if (found->mtime.tv_sec != file->mtime.tv_sec || found->mtime.tv_nsec != file->mtime.tv_nsec)
		return fail(ESTALE, "%s: the mount has returned, but the file was written to meanwhile: start again",
			    file->path);
	/* The range was cut to blocks of the old size. */
	if (found->is_direct && file->is_direct && found->block_size != file->block_size)
		return fail(ESTALE, "%s: the mount has returned with another block size (%u, before: %u): start again",
			    file->path, found->block_size, file->block_size);
	return 0;
}

/* Leaves the old descriptors to @found. */
static void take_over(struct fdmabuf_file *file, struct fdmabuf_file *found)
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

	if (ret)	/* whatever it is, the mount may still be on its way */
		return -EAGAIN;
	ret = is_on_new_mount(file, found) ? check_same(file, found) : fail(EAGAIN, "it is not mounted");
	if (!ret)
		take_over(file, found);
	fdmabuf_file_close(found);
	return ret;
}
