/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opening, creating and closing files. */
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
	/* Another request was faster. */
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

/* What begin_file() took over. Keeps errno. */
static void give_up(struct inode *inode, struct file *file, int fd)
{
	int saved = errno;

	free(file);
	if (fd >= 0)
		close(fd);
	inode_end_use(inode);
	errno = saved;
}

/*
 * Makes the "fh" of an open file. Takes over the use of its node, which lasts as long: what is open can lose its
 * last name. Takes over the descriptor, if there is one. NULL: see errno.
 */
static struct file *begin_file(fuse_req_t req, struct inode *inode, int fd, struct fuse_file_info *info)
{
	struct file *file = malloc(sizeof(*file));
	bool writes = (info->flags & O_ACCMODE) != O_RDONLY;
	int backing_id;

	if (!file || !passthrough_begin(inode, writes, &backing_id)) {
		give_up(inode, file, fd);
		return NULL;
	}
	*file = (struct file){ .inode = inode, .fd = fd, .flags = info->flags,
			       .uid = fuse_req_ctx(req)->uid };
	open_files_add(file);
	info->fh = (uintptr_t)file;
	info->backing_id = backing_id;
	/* No shared mapping: the kernel would take what is written there, and find nobody who may write it. */
	info->direct_io = writes && !backing_id && inode_is_append_only(inode);
	/* A close() has nothing to tell that the source directory's filesystem would say. */
	info->noflush = 1;
	cache_open_file(info);
	return file;
}

/*
 * Most files are opened to be read, and their data does not come here: they need no descriptor. Whether one can be
 * opened for writing (it is not being executed), or in another special way, must be known at once, and why not:
 * of its own opening the kernel only tells EIO.
 */
static bool needs_no_descriptor(const struct file *file, const struct fuse_file_info *info)
{
	return info->backing_id && file->inode->identity.readable &&
	       !(file->flags & (O_ACCMODE | O_DIRECT | O_NONBLOCK | O_NOATIME | O_TRUNC));
}

/* Returns false with errno set if the caller may not open the file so, as it is now. */
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
 * The server's descriptor uses the page cache, whatever the program's flags are by now: the buffers of READ and WRITE
 * requests, and the ranges of copies, are aligned to nothing.
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
		/* Interrupted: no release will come. */
		if (fuse_reply_open(req, info) == -ENOENT)
			end_file(file);
	}
}

/* Answers create and tmpfile with the new file, whose descriptor it takes over. */
static void reply_created(fuse_req_t req, int fd, struct fuse_file_info *info)
{
	struct fuse_entry_param entry;
	struct file *file;
	/* Of what is open, whatever its name leads to by now. */
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

/* The descriptor of a new file. -1: see errno. */
static int create_as_caller(fuse_req_t req, const struct inode *directory, const char *name, int flags, mode_t mode)
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
 * Always exclusive. The kernel has checked the caller's right to create a file here, not the right to open
 * one that somebody made under that name in the source directory meanwhile. ESTALE makes the kernel look
 * again, and check.
 */
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *info)
{
	struct inode *directory = use_node_to_open(req, parent);
	int fd;

	if (!directory)
		return;
	fd = create_as_caller(req, directory, name, (info->flags & ~O_TRUNC) | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
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
