/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is done with open files. Reads and writes come here only where passthrough is not possible. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "caller.h"
#include "file.h"
#include "identity.h"
#include "nobody.h"
#include "operations.h"

/*
 * A copy cannot be interrupted, so it is done in steps that take a second at most: a killed program ends in
 * time, and cp(1) goes on where a step ended.
 */
#define COPY_STEP_MAX (128u << 20)

void op_read(fuse_req_t req, fuse_ino_t nodeid, size_t size, off_t offset, struct fuse_file_info *info)
{
	struct fuse_bufvec source = FUSE_BUFVEC_INIT(size);
	int fd = file_fd(file_from_info(info));

	(void)nodeid;
	if (fd < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	source.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	source.buf[0].fd = fd;
	source.buf[0].pos = offset;
	fuse_reply_data(req, &source, 0);
}

static ssize_t write_as_nobody(int fd, const char *data, size_t size, off_t offset)
{
	ssize_t written;

	if (fd < 0 || !nobody_assume(0))
		return -1;
	written = pwrite(fd, data, size, offset);
	identity_end();
	return written;
}

/*
 * Pages that were mapped go to their own place, although the file that the kernel has at hand appends. Not to a file
 * that can only be appended to: the file system below refuses this open to everybody.
 */
static ssize_t write_in_place(const struct file *file, const char *data, size_t size, off_t offset)
{
	int fd = reopen(file->inode->fd, O_WRONLY), saved;
	ssize_t written = write_as_nobody(fd, data, size, offset);

	saved = errno;
	if (fd >= 0)
		close(fd);
	errno = saved;
	return written;
}

static ssize_t write_as_caller(fuse_req_t req, int fd, const char *data, size_t size, off_t offset)
{
	const struct target target = { TARGET_FILE, fd, NULL };
	struct caller caller;
	ssize_t written;

	if (fd < 0 || !caller_begin_to_write(&caller, req, &target))
		return -1;
	do {
		written = pwrite(fd, data, size, offset);
	} while (caller_goes_on(&caller, written < 0 ? errno : 0));
	return written;
}

/*
 * A write is nobody's, as those by passthrough are: its writer may have ended, and of pages that were mapped nobody
 * knows who changed them. What nobody is refused (blocks that are kept for root, what a quota does not allow, a file
 * that can only be appended to and has a set-ID bit to lose) the caller may be allowed.
 */
void op_write(fuse_req_t req, fuse_ino_t nodeid, const char *data, size_t size, off_t offset,
	      struct fuse_file_info *info)
{
	struct file *file = file_from_info(info);
	ssize_t written;

	(void)nodeid;
	if (info->writepage && file->flags & O_APPEND)
		written = write_in_place(file, data, size, offset);
	else
		written = write_as_nobody(file_fd(file), data, size, offset);
	if (written < 0 && !info->writepage && (errno == EPERM || errno == EDQUOT || errno == ENOSPC))
		written = write_as_caller(req, file_fd(file), data, size, offset);
	if (written < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_write(req, (size_t)written);
}

void op_fsync(fuse_req_t req, fuse_ino_t nodeid, int datasync, struct fuse_file_info *info)
{
	int fd = file_fd(file_from_info(info));

	(void)nodeid;
	if (fd < 0)
		fuse_reply_err(req, errno);
	else
		reply_result(req, datasync ? fdatasync(fd) : fsync(fd));
}

void op_fallocate(fuse_req_t req, fuse_ino_t nodeid, int mode, off_t offset, off_t length,
		  struct fuse_file_info *info)
{
	const struct target target = { TARGET_FILE, file_fd(file_from_info(info)), NULL };
	struct caller caller;
	int error;

	(void)nodeid;
	error = target.fd >= 0 && caller_begin_to_write(&caller, req, &target) ? 0 : errno;
	if (!error) {
		do {
			error = fallocate(target.fd, mode, offset, length) ? errno : 0;
		} while (caller_goes_on(&caller, error));
	}
	fuse_reply_err(req, error);
}

void op_lseek(fuse_req_t req, fuse_ino_t nodeid, off_t offset, int whence, struct fuse_file_info *info)
{
	int fd = file_fd(file_from_info(info));
	off_t found = fd < 0 ? -1 : lseek(fd, offset, whence);

	(void)nodeid;
	if (found < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_lseek(req, found);
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t nodeid_in, off_t offset_in,
			struct fuse_file_info *info_in, fuse_ino_t nodeid_out, off_t offset_out,
			struct fuse_file_info *info_out, size_t length, int flags)
{
	const struct target out = { TARGET_FILE, file_fd(file_from_info(info_out)), NULL };
	size_t step = length < COPY_STEP_MAX ? length : COPY_STEP_MAX;
	int in = file_fd(file_from_info(info_in));
	struct caller caller;
	ssize_t copied = -1;

	(void)nodeid_in;
	(void)nodeid_out;
	if (in >= 0 && out.fd >= 0 && caller_begin_to_write(&caller, req, &out)) {
		do {
			copied = copy_file_range(in, &offset_in, out.fd, &offset_out, step, (unsigned int)flags);
		} while (caller_goes_on(&caller, copied < 0 ? errno : 0));
	}
	if (copied < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_write(req, (size_t)copied);
}
