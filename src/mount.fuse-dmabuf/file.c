/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opening, creating and closing files. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "cache.h"
#include "caller.h"
#include "descriptors.h"
#include "file.h"
#include "operations.h"
#include "passthrough.h"

static void end_file(struct file *file)
{
	open_files_remove(file);
	passthrough_end(file->inode);
	close(file->fd);
	inode_end_use(file->inode);
	free(file);
}

/*
 * Makes the "fh" of an open descriptor, which it takes over, as the use of the node, which lasts as long: a file
 * that is open can lose its last name. The kernel opens a backing file of its own
 * with the flags of the program; this descriptor is for everything but the data.
 */
static bool begin_file(struct inode *inode, int fd, struct fuse_file_info *info)
{
	struct file *file = malloc(sizeof(*file));

	if (!file) {
		close(fd);
		inode_end_use(inode);
		errno = ENOMEM;
		return false;
	}
	*file = (struct file){ .inode = inode, .fd = fd, .flags = info->flags };
	open_files_add(file);
	info->fh = (uintptr_t)file;
	info->backing_id = passthrough_begin(inode);
	/* Buffers of READ and WRITE requests are aligned to nothing. */
	if (!info->backing_id && info->flags & O_DIRECT)
		fcntl(fd, F_SETFL, info->flags & ~O_DIRECT);
	/* A close() has nothing to tell that the source directory's filesystem would say. */
	info->noflush = 1;
	cache_open_file(info);
	return true;
}

void op_open(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *info)
{
	struct inode *inode = use_node(req, nodeid);
	int fd;

	if (!inode)
		return;
	fd = reopen(inode->fd, info->flags);
	if (fd < 0) {
		fuse_reply_err(req, errno);
		inode_end_use(inode);
	} else if (!begin_file(inode, fd, info))
		fuse_reply_err(req, errno);
	else if (fuse_reply_open(req, info) == -ENOENT)
		/* Interrupted: no release will come. */
		end_file(file_from_info(info));
}

/* Answers create and tmpfile with the new file, whose descriptor it takes over. */
static void reply_created(fuse_req_t req, int fd, struct fuse_file_info *info)
{
	struct fuse_entry_param entry;
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
	} else if (!begin_file(inode, fd, info)) {
		fuse_reply_err(req, errno);
		inode_forget(inode, 1);
	} else if (fuse_reply_create(req, &entry, info) == -ENOENT) {
		end_file(file_from_info(info));
		inode_forget(inode, 1);
	}
}

/*
 * Always exclusive. The kernel has checked the caller's right to create a file here, not the right to open
 * one that somebody made under that name in the source directory meanwhile. ESTALE makes the kernel look
 * again, and check.
 */
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *info)
{
	struct inode *directory = use_node(req, parent);
	int flags = (info->flags & ~O_TRUNC) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	int fd = -1;

	if (!directory)
		return;
	if (caller_begin(req)) {
		do {
			fd = openat(directory->fd, name, flags, mode);
		} while (fd < 0 && descriptors_made_room());
		caller_end(req);
	}
	if (check_file_limit(fd) < 0)
		fuse_reply_err(req, errno == EEXIST && !(info->flags & O_EXCL) ? ESTALE : errno);
	else
		reply_created(req, fd, info);
	inode_end_use(directory);
}

void op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *info)
{
	struct inode *directory = use_node(req, parent);
	int fd = -1;

	if (!directory)
		return;
	if (caller_begin(req)) {
		do {
			fd = openat(directory->fd, ".", info->flags | O_TMPFILE | O_CLOEXEC, mode);
		} while (fd < 0 && descriptors_made_room());
		caller_end(req);
	}
	if (check_file_limit(fd) < 0)
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
