/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files: opens them with and without O_DIRECT, and finds their size and block size. */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "common/fuse-connection.h"
#include "internal.h"

/*
 * In bytes: the block size if the kernel does not report the alignment of direct reads. FUSE does
 * not pass STATX_DIOALIGN on. No common NVMe format has larger logical blocks.
 */
#define BLOCK_SIZE_UNKNOWN 4096u

/* Sets the text for errno of an open(2) or stat(2) of @path, and returns a negative errno. */
static int open_error(const char *path)
{
	if (fuse_connection_has_ended(errno))
		return fail(ENOTCONN, "%s: the FUSE server of this mount has ended: "
			    "remove the mount with \"umount -l\" and mount it again", path);
	switch (errno) {
	case ENOENT:
		return fail(ENOENT, "%s: no such file", path);
	case EACCES:
	case EPERM:
		return fail(errno, "%s: permission denied: make it readable for this user "
			    "(uid %u), or run as a user who may read it", path,
			    (unsigned)geteuid());
	default:
		return fail(errno, "%s: cannot be opened: %s", path, strerror(errno));
	}
}

/* Comes before open(2), which would wait for a writer if the file were a FIFO. */
static int check_file_type(const char *path)
{
	struct stat status;

	if (stat(path, &status))
		return open_error(path);
	if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
		return fail(EINVAL, "%s: neither a regular file nor a block device", path);
	return 0;
}

/* Returns 0 if the file allows no direct reads. */
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
 * Records size and modification time. Returns false, and keeps the last ones, if fstat(2) fails, as
 * it does on a mount whose server has ended.
 */
static bool record_status(struct fdmabuf_file *file, struct stat *status)
{
	uint64_t size;

	if (fstat(file->fd, status))
		return false;
	file->mtime = status->st_mtim;
	if (!S_ISBLK(status->st_mode))
		file->size = status->st_size;
	else if (!ioctl(file->fd, BLKGETSIZE64, &size))
		file->size = size;
	return true;
}

static int open_with_or_without_o_direct(struct fdmabuf_file *file)
{
	file->fd = open(file->path, O_RDONLY | O_CLOEXEC | O_DIRECT);
	if (file->fd >= 0) {
		file->block_size = find_block_size(file->fd);
		file->is_direct = file->block_size != 0;
		if (file->is_direct)
			return 0;
		close(file->fd);
	} else if (errno != EINVAL) {
		return open_error(file->path);
	}
	file->block_size = BLOCK_SIZE_UNKNOWN;
	file->fd = open(file->path, O_RDONLY | O_CLOEXEC);
	return file->fd < 0 ? open_error(file->path) : 0;
}

int fdmabuf_file_open(const char *path, struct fdmabuf_file **result)
{
	struct fdmabuf_file *file;
	struct stat status = { 0 };
	int ret = check_file_type(path);

	if (ret)
		return ret;
	file = calloc(1, sizeof(*file));
	if (!file)
		return fail(ENOMEM, "%s: out of memory", path);
	file->fd = file->plain_fd = -1;
	file->path = strdup(path);
	ret = file->path ? open_with_or_without_o_direct(file) :
			   fail(ENOMEM, "%s: out of memory", path);
	if (!ret && !record_status(file, &status))
		ret = open_error(path);
	if (ret) {
		fdmabuf_file_close(file);
		return ret;
	}
	file->device = status.st_dev;
	file->inode = status.st_ino;
	file->is_fuse = is_on_fuse(file->fd);
	/* realpath(3) returns NULL for a file that has no name any more. */
	if (file->is_fuse)
		file->real_path = realpath(path, NULL);
	*result = file;
	return 0;
}

void fdmabuf_file_close(struct fdmabuf_file *file)
{
	if (!file)
		return;
	close_fd(&file->fd);
	close_fd(&file->plain_fd);
	free(file->path);
	free(file->real_path);
	free(file);
}

uint64_t file_refresh(struct fdmabuf_file *file)
{
	struct stat status;

	record_status(file, &status);
	return file->size;
}

uint64_t fdmabuf_file_size(const struct fdmabuf_file *file)
{
	struct fdmabuf_file now = *file;

	return file_refresh(&now);
}

bool fdmabuf_file_is_direct(const struct fdmabuf_file *file)
{
	return file->is_direct;
}

uint32_t fdmabuf_file_block_size(const struct fdmabuf_file *file)
{
	return file->block_size;
}

/* Opens the file without O_DIRECT. Returns the descriptor or a negative errno. */
static int open_plain(const struct fdmabuf_file *file)
{
	/* After file_reopen(), path may lead through a directory of the mount that has ended. */
	int fd = open(file->generation ? file->real_path : file->path, O_RDONLY | O_CLOEXEC);
	struct stat status;

	if (fd < 0)
		return open_error(file->path);
	/* Another file may have taken the path since the file was opened. */
	if (!fstat(fd, &status) && status.st_dev == file->device && status.st_ino == file->inode)
		return fd;
	close(fd);
	return fail(ESTALE, "%s: was replaced by another file while in use: start again",
		    file->path);
}

static int fail_server_ended(const struct fdmabuf_file *file)
{
	return fail(ENOTCONN, "%s: the FUSE server of this mount has ended: "
		    "mount it again, and start again", file->path);
}

int file_plain_fd(struct fdmabuf_file *file)
{
	int fd;

	if (!file->is_direct)
		return file->fd;
	if (file->plain_fd >= 0)
		return file->plain_fd;

	fd = open_plain(file);
	if (fd >= 0)
		file->plain_fd = fd;
	else if (file_server_has_ended(file))	/* the cause, whatever the error of open(2) is */
		return fail_server_ended(file);
	return fd;
}

static int fail_read(const struct fdmabuf_file *file, uint64_t offset, int error)
{
	if (file_is_lost(file, error))
		return fail_server_ended(file);
	return fail(error, "%s: reading at offset %llu: %s", file->path, (unsigned long long)offset,
		    strerror(error));
}

int64_t fdmabuf_file_pread(struct fdmabuf_file *file, void *data, size_t length, uint64_t offset)
{
	int fd = file_plain_fd(file);
	size_t done = 0;
	ssize_t got;

	if (fd < 0)
		return fd;
	while (done < length) {
		got = pread(fd, (char *)data + done, length - done, offset + done);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return fail_read(file, offset + done, errno);
		if (got == 0)
			break;
		done += got;
	}
	return done;
}
