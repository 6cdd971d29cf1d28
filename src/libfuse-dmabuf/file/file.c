/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files: opens them with and without O_DIRECT, and finds their size and block size. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/descriptor.h"
#include "base/error.h"
#include "common/fuse-connection.h"
#include "file/file.h"

/*
 * In bytes: the block size if the kernel does not report the alignment of direct requests. FUSE
 * does not pass STATX_DIOALIGN on. No common NVMe format has larger logical blocks.
 */
#define BLOCK_SIZE_UNKNOWN 4096u

#define FLAGS_ALLOWED (O_ACCMODE | O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC)
/* What may happen only once, not again for the second descriptor. */
#define FLAGS_ONCE (O_CREAT | O_EXCL | O_TRUNC)

/* Sets the text for errno of an open(2) or stat(2) of @path, and returns a negative errno. */
static int open_error(const char *path, int flags)
{
	bool writes = (flags & O_ACCMODE) != O_RDONLY;

	if (fuse_connection_has_ended(errno))
		return fail(ENOTCONN, "%s: the FUSE server of this mount has ended: "
			    "remove the mount with \"umount -l\" and mount it again", path);
	switch (errno) {
	case ENOENT:
		return fail(ENOENT, "%s: no such %s", path, flags & O_CREAT ? "directory" : "file");
	case EACCES:
	case EPERM:
		return fail(errno, "%s: permission denied: make it %s for this user "
			    "(uid %u), or run as a user who may %s it", path,
			    writes ? "writable" : "readable", (unsigned)geteuid(),
			    writes ? "write" : "read");
	default:
		return fail(errno, "%s: cannot be opened: %s", path, strerror(errno));
	}
}

/* Comes before open(2), which would wait for the other end if the file were a FIFO. */
static int check_file_type(const char *path, int flags)
{
	struct stat status;

	if (stat(path, &status))
		return errno == ENOENT && flags & O_CREAT ? 0 : open_error(path, flags);
	if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
		return fail(EINVAL, "%s: neither a regular file nor a block device", path);
	return 0;
}

/* Returns 0 if the file allows no direct requests. */
static uint32_t find_block_size(int fd)
{
	struct statx extended = { 0 };
	int sector;

	if (!statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &extended) &&
	    extended.stx_mask & STATX_DIOALIGN) {
		if (!extended.stx_dio_offset_align)
			return 0;
		return extended.stx_dio_offset_align > BLOCK_SIZE_MIN ?
		       extended.stx_dio_offset_align : BLOCK_SIZE_MIN;
	}
	if (!ioctl(fd, BLKSSZGET, &sector) && sector >= (int)BLOCK_SIZE_MIN)
		return sector;
	return BLOCK_SIZE_UNKNOWN;
}

/*
 * Opens the file behind @fd a second time, with other flags. By the descriptor, because the path
 * may lead to another file meanwhile; by the path where /proc is missing, or where the mode that
 * the file was created with forbids a second open. Returns -1 if neither leads to the file.
 */
static int open_again(int fd, const char *path, int flags)
{
	struct stat wanted, found;
	char link[32];
	int again;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	again = open(link, flags | O_CLOEXEC);
	if (again >= 0)
		return again;
	if (errno != ENOENT)
		return -1;
	again = open(path, flags | O_CLOEXEC);
	if (again >= 0 && !fstat(fd, &wanted) && !fstat(again, &found) &&
	    wanted.st_dev == found.st_dev && wanted.st_ino == found.st_ino)
		return again;
	close_fd(&again);
	return -1;
}

/* Takes a descriptor with O_DIRECT, or closes it if the file allows no direct requests. */
static void take_direct(struct fd_handle *handle, int fd)
{
	handle->block_size = find_block_size(fd);
	handle->is_direct = handle->block_size != 0;
	if (handle->is_direct)
		handle->fd = fd;
	else
		close(fd);
}

/*
 * Opens a file that exists: with O_DIRECT first, because the second descriptor is the one that a
 * rare caller needs.
 */
static int open_existing(struct fd_handle *handle, const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC | O_DIRECT);

	if (fd < 0 && errno != EINVAL)
		return open_error(path, flags);
	if (fd >= 0) {
		handle->plain_fd = open_again(fd, path, flags & ~FLAGS_ONCE);
		if (handle->plain_fd < 0) {
			int ret = open_error(path, flags);

			close(fd);
			return ret;
		}
		take_direct(handle, fd);
	} else {
		handle->plain_fd = open(path, flags | O_CLOEXEC);
		if (handle->plain_fd < 0)
			return open_error(path, flags);
	}
	return 0;
}

/* Creates a file without O_DIRECT: with it, a filesystem may create the file and refuse it then. */
static int open_new(struct fd_handle *handle, const char *path, int flags, unsigned mode)
{
	int fd;

	handle->plain_fd = open(path, flags | O_CLOEXEC, mode);
	if (handle->plain_fd < 0)
		return open_error(path, flags);
	fd = open_again(handle->plain_fd, path, (flags & ~FLAGS_ONCE) | O_DIRECT);
	if (fd >= 0)
		take_direct(handle, fd);
	return 0;
}

static int open_descriptors(struct fd_handle *handle, const char *path, int flags, unsigned mode)
{
	struct stat status;
	int ret = flags & O_CREAT ? open_new(handle, path, flags, mode) :
				    open_existing(handle, path, flags);

	if (ret)
		return ret;
	if (!handle->is_direct) {
		handle->fd = handle->plain_fd;
		handle->block_size = BLOCK_SIZE_UNKNOWN;
	}
	if (fstat(handle->fd, &status))
		return open_error(path, flags);
	handle->device = status.st_dev;
	handle->data_device = S_ISBLK(status.st_mode) ? status.st_rdev : status.st_dev;
	handle->inode = status.st_ino;
	handle->is_fuse = is_on_fuse(handle->fd);
	return 0;
}

int handle_open(const char *path, int flags, unsigned mode, struct fd_handle **result)
{
	struct fd_handle *handle;
	int ret = check_file_type(path, flags);

	if (ret)
		return ret;
	handle = calloc(1, sizeof(*handle));
	if (!handle)
		return fail(ENOMEM, "%s: out of memory", path);
	atomic_init(&handle->references, 1);
	handle->fd = handle->plain_fd = -1;
	atomic_init(&handle->read_fd, -1);
	ret = open_descriptors(handle, path, flags, mode);
	if (ret)
		handle_put(handle);
	else
		*result = handle;
	return ret;
}

void handle_put(struct fd_handle *handle)
{
	if (!handle || atomic_fetch_sub(&handle->references, 1) > 1)
		return;
	if (handle->fd != handle->plain_fd)
		close_fd(&handle->fd);
	close_fd(&handle->plain_fd);
	if (handle->read_fd >= 0)
		close(handle->read_fd);
	free(handle);
}

/* The path may lead to another file by now, so the file is opened by its descriptor. */
static int open_reader(const struct fd_handle *handle)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", handle->fd);
	return open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
}

int handle_reader(struct fd_handle *handle)
{
	int fd, none = -1;

	if ((fcntl(handle->fd, F_GETFL) & O_ACCMODE) != O_WRONLY)
		return handle->fd;
	if (handle->read_fd >= 0)
		return handle->read_fd;
	fd = open_reader(handle);
	if (fd < 0 || atomic_compare_exchange_strong(&handle->read_fd, &none, fd))
		return fd;
	/* Another thread was faster. */
	close(fd);
	return none;
}

struct fd_handle *file_get_handle(struct fdmabuf_file *file)
{
	struct fd_handle *handle;

	objects_lock();
	handle = file->handle;
	atomic_fetch_add(&handle->references, 1);
	objects_unlock();
	return handle;
}

static void free_file(struct fdmabuf_file *file)
{
	handle_put(file->handle);
	free(file->path);
	free(file->real_path);
	free(file);
}

int fdmabuf_file_open(const char *path, int flags, unsigned mode, struct fdmabuf_file **result)
{
	struct fdmabuf_file *file;
	struct file_version version;
	int ret;

	if (flags & ~FLAGS_ALLOWED || (flags & O_ACCMODE) == O_ACCMODE)
		return fail(EINVAL, "%s: the flags %#x are not those of a file to read or write",
			    path, flags);
	file = calloc(1, sizeof(*file));
	if (!file)
		return fail(ENOMEM, "%s: out of memory", path);
	object_init(&file->object);
	file->access = flags & O_ACCMODE;
	file->path = strdup(path);
	ret = file->path ? handle_open(path, flags, mode, &file->handle) :
			   fail(ENOMEM, "%s: out of memory", path);
	if (!ret && !handle_get_version(file->handle, &version))
		ret = open_error(path, flags);
	if (ret) {
		free_file(file);
		return ret;
	}
	file_note_size(file, version.size);
	file->block_size = file->handle->block_size;
	/* realpath(3) returns NULL for a file that has no name any more. */
	if (file->handle->is_fuse)
		file->real_path = realpath(path, NULL);
	*result = file;
	return 0;
}

struct fdmabuf_file *fdmabuf_file_ref(struct fdmabuf_file *file)
{
	object_get(&file->object);
	return file;
}

void fdmabuf_file_close(struct fdmabuf_file *file)
{
	if (file && object_put(&file->object))
		free_file(file);
}

/* ------------------------------------------------------------------ status */

bool handle_get_version(const struct fd_handle *handle, struct file_version *version)
{
	struct stat status;
	uint64_t size;

	if (fstat(handle->fd, &status))
		return false;
	version->mtime = status.st_mtim;
	version->ctime = status.st_ctim;
	version->size = status.st_size;
	if (!S_ISBLK(status.st_mode))
		return true;
	if (ioctl(handle->fd, BLKGETSIZE64, &size))
		return false;
	version->size = size;
	return true;
}

static bool is_same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

const char *file_version_difference(const struct file_version *before,
				    const struct file_version *now)
{
	if (now->size != before->size)
		return "was resized";
	if (!is_same_time(&now->mtime, &before->mtime))
		return "was written to";
	/* Whoever sets mtime back, as rsync(1) does, cannot set ctime. */
	if (!is_same_time(&now->ctime, &before->ctime))
		return "was changed";
	return NULL;
}

void file_note_size(struct fdmabuf_file *file, uint64_t size)
{
	atomic_store_explicit(&file->last_size, size, memory_order_relaxed);
}

uint64_t fdmabuf_file_size(const struct fdmabuf_file *constant)
{
	/* Looking at the size changes nothing that a caller sees. */
	struct fdmabuf_file *file = (struct fdmabuf_file *)constant;
	struct fd_handle *handle = file_get_handle(file);
	struct file_version version;

	if (handle_get_version(handle, &version))
		file_note_size(file, version.size);
	handle_put(handle);
	return atomic_load_explicit(&file->last_size, memory_order_relaxed);
}

bool fdmabuf_file_is_direct(const struct fdmabuf_file *constant)
{
	struct fd_handle *handle = file_get_handle((struct fdmabuf_file *)constant);
	bool is_direct = handle->is_direct;

	handle_put(handle);
	return is_direct;
}

uint32_t fdmabuf_file_block_size(const struct fdmabuf_file *file)
{
	return file->block_size;
}
