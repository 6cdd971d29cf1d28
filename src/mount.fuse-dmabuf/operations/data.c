/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Answers requests that read, write, sync, allocate, seek and copy in open files. The kernel sends
 * READ and WRITE only where passthrough is not possible.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/uio.h>
#include <unistd.h>

#include "identity/caller.h"
#include "identity/identity.h"
#include "identity/nobody.h"
#include "operations/file.h"
#include "operations/operations.h"
#include "operations/reply.h"

/*
 * In bytes: the most that one request copies, so that it takes a second at most. A copy cannot be
 * interrupted, and a killed program must end in time; cp(1) goes on where a step ended.
 */
#define COPY_STEP_MAX (128u << 20)

void op_read(fuse_req_t req, fuse_ino_t nodeid, size_t size, off_t offset,
	     struct fuse_file_info *info)
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

/*
 * Returns a descriptor that appends if @append is O_APPEND, and does not if it is 0, until
 * end_writing(). The descriptor is the file's own, unless fcntl(2) has changed the flag since the
 * open. Returns -1 with errno set if that fails: EPERM if the file can only be appended to.
 */
static int begin_writing(struct file *file, int append)
{
	if ((file->flags & O_APPEND) == append)
		return file_fd(file);
	return reopen(file->inode->fd, O_WRONLY | append | (file->flags & O_SYNC));
}

/* Closes the descriptor of begin_writing(), unless it is the file's own. Keeps errno. */
static void end_writing(const struct file *file, int fd)
{
	int saved = errno;

	if (fd >= 0 && fd != file->fd)
		close(fd);
	errno = saved;
}

/* One write, as for pwritev2(2). */
struct write {
	int fd;
	const char *data;
	size_t size;
	off_t offset;
	int flags;              /* RWF_* */
};

static ssize_t do_write(const struct write *write)
{
	const struct iovec part = { .iov_base = (void *)write->data, .iov_len = write->size };

	return pwritev2(write->fd, &part, 1, write->offset, write->flags);
}

static ssize_t write_as_nobody(const struct write *write)
{
	ssize_t written;

	if (!nobody_assume(0))
		return -1;
	written = do_write(write);
	identity_end();
	return written;
}

static ssize_t write_as_caller(fuse_req_t req, const struct write *write)
{
	const struct target target = { TARGET_FILE, write->fd, NULL };
	struct caller caller;
	ssize_t written;

	if (!caller_begin_to_write(&caller, req, &target))
		return -1;
	do {
		written = do_write(write);
	} while (caller_should_retry(&caller, written < 0 ? errno : 0));
	return written;
}

/*
 * Writes as nobody (see nobody.h), as passthrough does: the writer may have ended, and the writer
 * of a mapped page is not known. If nobody is refused (blocks that are kept for root, a quota that
 * allows no more, a file that can only be appended to and has a set-ID bit to lose), tries again as
 * the caller, who may be allowed.
 */
static ssize_t write_data(fuse_req_t req, const struct write *write, bool writer_is_known)
{
	ssize_t written = write_as_nobody(write);

	if (written < 0 && writer_is_known &&
	    (errno == EPERM || errno == EDQUOT || errno == ENOSPC))
		written = write_as_caller(req, write);
	return written;
}

/*
 * Returns the RWF_* flags for a write that must be on the disk when it returns, as @flags say,
 * unless the descriptor does so by itself, with its @flags_of_open.
 */
static int sync_flags(int flags, int flags_of_open)
{
	int missing = flags & ~flags_of_open;

	return missing & O_SYNC & ~O_DSYNC ? RWF_SYNC : missing & O_DSYNC ? RWF_DSYNC : 0;
}

/* Mapped pages (writepage) go to their own offset: no flags of an open file count for them. */
void op_write(fuse_req_t req, fuse_ino_t nodeid, const char *data, size_t size, off_t offset,
	      struct fuse_file_info *info)
{
	struct file *file = file_from_info(info);
	int flags = info->writepage ? 0 : info->flags;
	const struct write write = {
		.fd = begin_writing(file, flags & O_APPEND),
		.data = data, .size = size, .offset = offset,
		.flags = sync_flags(flags, file->flags),
	};
	ssize_t written = write.fd < 0 ? -1 : write_data(req, &write, !info->writepage);

	(void)nodeid;
	end_writing(file, write.fd);
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
		} while (caller_should_retry(&caller, error));
	}
	fuse_reply_err(req, error);
}

void op_lseek(fuse_req_t req, fuse_ino_t nodeid, off_t offset, int whence,
	      struct fuse_file_info *info)
{
	int fd = file_fd(file_from_info(info));
	off_t found = fd < 0 ? -1 : lseek(fd, offset, whence);

	(void)nodeid;
	if (found < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_lseek(req, found);
}

/*
 * The kernel itself refuses a program's file that appends now. The server's descriptor must not
 * append either, whatever the flags of the open were, or copy_file_range() fails with EBADF.
 */
void op_copy_file_range(fuse_req_t req, fuse_ino_t nodeid_in, off_t offset_in,
			struct fuse_file_info *info_in, fuse_ino_t nodeid_out, off_t offset_out,
			struct fuse_file_info *info_out, size_t length, int flags)
{
	struct file *file_out = file_from_info(info_out);
	const struct target out = { TARGET_FILE, begin_writing(file_out, 0), NULL };
	size_t step = length < COPY_STEP_MAX ? length : COPY_STEP_MAX;
	int in = out.fd < 0 ? -1 : file_fd(file_from_info(info_in));
	struct caller caller;
	ssize_t copied = -1;

	(void)nodeid_in;
	(void)nodeid_out;
	if (in >= 0 && caller_begin_to_write(&caller, req, &out)) {
		do {
			copied = copy_file_range(in, &offset_in, out.fd, &offset_out, step,
						 (unsigned int)flags);
		} while (caller_should_retry(&caller, copied < 0 ? errno : 0));
	}
	end_writing(file_out, out.fd);
	if (copied < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_write(req, (size_t)copied);
}
