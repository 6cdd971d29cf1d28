/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers requests that open, create and close files. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "identity/caller.h"
#include "limits/descriptor-limit.h"
#include "nodes/passthrough.h"
#include "operations/cache.h"
#include "operations/file.h"
#include "operations/operations.h"
#include "operations/reply.h"

int file_fd(struct file *file)
{
	int fd = file->fd, none = -1;

	if (fd >= 0)
		return fd;
	fd = reopen(file->inode->fd, file->flags);
	if (fd < 0 || atomic_compare_exchange_strong(&file->fd, &none, fd))
		return fd;
	/* Another request has opened a descriptor meanwhile: use that one. */
	close(fd);
	return none;
}

static void end_file(struct file *file)
{
	open_files_remove(file);
	passthrough_end(file->inode);
	if (file->fd >= 0)
		close(file->fd);
	inode_end_use(file->inode);
	free(file);
}

/* Releases what begin_file() took over. Keeps errno. */
static void undo_begin_file(struct inode *inode, struct file *file, int fd)
{
	int saved = errno;

	free(file);
	if (fd >= 0)
		close(fd);
	inode_end_use(inode);
	errno = saved;
}

/*
 * Makes the struct file of an open, and fills in @info. Takes over the use of the node, which stays
 * in use as long as the file is open, because an open file can lose its last name. Takes over @fd,
 * unless it is -1. Returns NULL with errno set if that fails; node and @fd are released then.
 */
static struct file *begin_file(fuse_req_t req, struct inode *inode, int fd,
			       struct fuse_file_info *info)
{
	struct file *file = malloc(sizeof(*file));
	bool writes = (info->flags & O_ACCMODE) != O_RDONLY;
	int backing_id;

	if (!file || !passthrough_begin(inode, writes, &backing_id)) {
		undo_begin_file(inode, file, fd);
		return NULL;
	}
	*file = (struct file){ .inode = inode, .fd = fd, .flags = info->flags,
			       .uid = fuse_req_ctx(req)->uid };
	open_files_add(file);
	info->fh = (uintptr_t)file;
	info->backing_id = backing_id;
	/*
	 * Direct I/O forbids shared mappings. The kernel would accept data written to one, and lose
	 * it: no writeback may write to a file that can only be appended to.
	 */
	info->direct_io = writes && !backing_id && inode_is_append_only(inode);
	/*
	 * The kernel sends no FLUSH: the source's file system has nothing to report at a close().
	 */
	info->noflush = 1;
	cache_open_file(info);
	return file;
}

/*
 * Returns true if the open needs no descriptor of the server. Most files are opened to be read, and
 * with passthrough their data does not come here. A file that is opened for writing (which fails
 * while it is executed) or with a special flag is opened by the server at once, to report the
 * errno: if the kernel's own open fails, the program only sees EIO.
 */
static bool needs_no_descriptor(const struct file *file, const struct fuse_file_info *info)
{
	return info->backing_id && file->inode->identity.readable &&
	       !(file->flags & (O_ACCMODE | O_DIRECT | O_NONBLOCK | O_NOATIME | O_TRUNC));
}

/*
 * Opens the server's descriptor. Returns false with errno set if the caller may not open the file,
 * as it is now, with these flags.
 */
static bool open_as_caller(fuse_req_t req, struct file *file)
{
	const struct target target = { TARGET_FILE, file->inode->fd, NULL };
	struct caller caller;
	int fd;

	if (!caller_begin(&caller, req, &target, 1))
		return false;
	do {
		fd = file_fd(file);
	} while (caller_should_retry(&caller, fd < 0 ? errno : 0));
	return fd >= 0;
}

/*
 * Clears O_DIRECT of the server's descriptor, whatever the program's flags are by now: the buffers
 * of READ and WRITE requests, and the ranges of copies, have no alignment.
 */
static void use_page_cache(const struct file *file)
{
	if (file->flags & O_DIRECT)
		fcntl(file->fd, F_SETFL, file->flags & ~O_DIRECT);
}

void op_open(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *info)
{
	struct inode *inode = use_node_to_open(req, nodeid);
	struct file *file;

	if (!inode)
		return;
	file = begin_file(req, inode, -1, info);
	if (!file) {
		fuse_reply_err(req, errno);
	} else if (!needs_no_descriptor(file, info) && !open_as_caller(req, file)) {
		fuse_reply_err(req, errno);
		end_file(file);
	} else {
		use_page_cache(file);
		/* The open was interrupted: the kernel will send no RELEASE. */
		if (fuse_reply_open(req, info) == -ENOENT)
			end_file(file);
	}
}

/* Answers CREATE or TMPFILE with the new file. Takes over its descriptor. */
static void reply_created(fuse_req_t req, int fd, struct fuse_file_info *info)
{
	struct fuse_entry_param entry;
	struct file *file;
	/* The node is that of the open file, whatever file has its name by now. */
	int path_fd = reopen(fd, O_PATH);
	struct inode *inode = path_fd < 0 ? NULL : make_entry(path_fd, &entry);

	if (!inode) {
		fuse_reply_err(req, errno);
		close(fd);
		return;
	}
	if (!inode_use(inode)) {
		fuse_reply_err(req, errno);
		close(fd);
		inode_forget(inode, 1);
		return;
	}
	file = begin_file(req, inode, fd, info);
	if (!file) {
		fuse_reply_err(req, errno);
		inode_forget(inode, 1);
		return;
	}
	use_page_cache(file);
	if (fuse_reply_create(req, &entry, info) == -ENOENT) {
		end_file(file);
		inode_forget(inode, 1);
	}
}

/* Returns the descriptor of a new file, or -1 with errno set. */
static int create_as_caller(fuse_req_t req, const struct inode *directory, const char *name,
			    int flags, mode_t mode)
{
	const struct target target = { TARGET_DIRECTORY, directory->fd, NULL };
	struct caller caller;
	int fd;

	if (!caller_begin_to_create(&caller, req, &target, mode))
		return -1;
	do {
		do {
			fd = openat(directory->fd, name, flags | O_CLOEXEC, mode);
		} while (fd < 0 && may_open_again());
	} while (caller_should_retry(&caller, fd < 0 ? errno : 0));
	return check_file_limit(fd);
}

/*
 * Opens always with O_EXCL. The kernel has checked that the caller may create a file in the
 * directory, not that the caller may open a file that somebody else made there meanwhile, in the
 * source itself. ESTALE makes the kernel look the name up again, and check.
 */
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *info)
{
	struct inode *directory = use_node_to_open(req, parent);
	int fd;

	if (!directory)
		return;
	fd = create_as_caller(req, directory, name,
			      (info->flags & ~O_TRUNC) | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
	if (fd < 0)
		fuse_reply_err(req, errno == EEXIST && !(info->flags & O_EXCL) ? ESTALE : errno);
	else
		reply_created(req, fd, info);
	inode_end_use(directory);
}

void op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *info)
{
	struct inode *directory = use_node_to_open(req, parent);
	int fd;

	if (!directory)
		return;
	fd = create_as_caller(req, directory, ".", info->flags | O_TMPFILE, mode);
	if (fd < 0)
		fuse_reply_err(req, errno);
	else
		reply_created(req, fd, info);
	inode_end_use(directory);
}

void op_release(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *info)
{
	(void)nodeid;
	end_file(file_from_info(info));
	fuse_reply_err(req, 0);
}
