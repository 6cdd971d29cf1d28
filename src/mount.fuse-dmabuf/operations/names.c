/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers requests that look up, create, link, rename and remove names, and that forget nodes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "broker/revoke-on-unlink.h"
#include "identity/caller.h"
#include "operations/operations.h"
#include "operations/reply.h"

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct inode *directory = use_node(req, parent);

	if (!directory)
		return;
	atomic_store_explicit(&directory->names_looked_up, true, memory_order_relaxed);
	reply_entry(req, inode_open_child(directory, name));
	inode_end_use(directory);
}

static void forget(fuse_ino_t nodeid, uint64_t lookups)
{
	struct inode *inode = inode_from_nodeid(nodeid);

	if (inode)
		inode_forget(inode, lookups);
}

void op_forget(fuse_req_t req, fuse_ino_t nodeid, uint64_t lookups)
{
	forget(nodeid, lookups);
	fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		forget(forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

/*
 * Answers with the entry of the name that was created, or with @error if it is not 0. Ends the use
 * of @directory.
 */
static void reply_new_name(fuse_req_t req, int error, struct inode *directory, const char *name)
{
	if (error)
		fuse_reply_err(req, error);
	else
		reply_entry(req, inode_open_child(directory, name));
	inode_end_use(directory);
}

/* The functions *_as_caller() of this file return an errno, or 0. */
static int mknod_as_caller(fuse_req_t req, const struct inode *directory, const char *name,
			   mode_t mode, dev_t rdev)
{
	const struct target target = { TARGET_DIRECTORY, directory->fd, NULL };
	struct caller caller;
	int error;

	if (!caller_begin_to_create(&caller, req, &target, mode))
		return errno;
	do {
		error = mknodat(directory->fd, name, mode, rdev) ? errno : 0;
	} while (caller_should_retry(&caller, error));
	return error;
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct inode *directory = use_node(req, parent);

	if (directory)
		reply_new_name(req, mknod_as_caller(req, directory, name, mode, rdev), directory,
			       name);
}

static int mkdir_as_caller(fuse_req_t req, const struct inode *directory, const char *name,
			   mode_t mode)
{
	const struct target target = { TARGET_DIRECTORY, directory->fd, NULL };
	struct caller caller;
	int error;

	if (!caller_begin_to_create(&caller, req, &target, mode))
		return errno;
	do {
		error = mkdirat(directory->fd, name, mode) ? errno : 0;
	} while (caller_should_retry(&caller, error));
	return error;
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct inode *directory = use_node(req, parent);

	if (directory)
		reply_new_name(req, mkdir_as_caller(req, directory, name, mode), directory, name);
}

static int symlink_as_caller(fuse_req_t req, const char *text, const struct inode *directory,
			     const char *name)
{
	const struct target target = { TARGET_DIRECTORY, directory->fd, NULL };
	struct caller caller;
	int error;

	if (!caller_begin(&caller, req, &target, 1))
		return errno;
	do {
		error = symlinkat(text, directory->fd, name) ? errno : 0;
	} while (caller_should_retry(&caller, error));
	return error;
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct inode *directory = use_node(req, parent);

	if (directory)
		reply_new_name(req, symlink_as_caller(req, target, directory, name), directory,
			       name);
}

/*
 * Links by a path in /proc: linkat() with AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH, which most
 * callers do not have.
 */
static int link_as_caller(fuse_req_t req, const struct inode *inode, const struct inode *directory,
			  const char *name)
{
	const struct target targets[] = {
		{ TARGET_FILE, inode->fd, NULL }, { TARGET_DIRECTORY, directory->fd, NULL },
	};
	char path[INODE_PATH_MAX];
	struct caller caller;
	int error;

	if (!caller_begin(&caller, req, TARGETS(targets)))
		return errno;
	inode_path(inode, path);
	do {
		error = linkat(AT_FDCWD, path, directory->fd, name, AT_SYMLINK_FOLLOW) ? errno : 0;
	} while (caller_should_retry(&caller, error));
	return error;
}

void op_link(fuse_req_t req, fuse_ino_t nodeid, fuse_ino_t parent, const char *name)
{
	struct inode *inode = use_node(req, nodeid);
	struct inode *directory = inode ? use_node(req, parent) : NULL;

	if (directory)
		reply_new_name(req, link_as_caller(req, inode, directory, name), directory, name);
	if (inode)
		inode_end_use(inode);
}

static int remove_as_caller(fuse_req_t req, const struct inode *directory, const char *name,
			    int flags)
{
	const struct target targets[] = {
		{ TARGET_DIRECTORY, directory->fd, NULL }, { TARGET_NAME, directory->fd, name },
	};
	struct caller caller;
	int error;

	if (!caller_begin(&caller, req, TARGETS(targets)))
		return errno;
	do {
		error = unlinkat(directory->fd, name, flags) ? errno : 0;
	} while (caller_should_retry(&caller, error));
	return error;
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct inode *directory = use_node(req, parent);
	struct unlinked_file unlinked;
	int error;

	if (!directory)
		return;
	unlinked = revoke_on_unlink_begin(directory, name);
	error = remove_as_caller(req, directory, name, 0);
	revoke_on_unlink_end(&unlinked);
	fuse_reply_err(req, error);
	inode_end_use(directory);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct inode *directory = use_node(req, parent);

	if (!directory)
		return;
	fuse_reply_err(req, remove_as_caller(req, directory, name, AT_REMOVEDIR));
	inode_end_use(directory);
}

static int rename_as_caller(fuse_req_t req, const struct inode *directory, const char *name,
			    const struct inode *new_directory, const char *new_name,
			    unsigned int flags)
{
	const struct target targets[] = {
		{ TARGET_DIRECTORY, directory->fd, NULL },
		{ TARGET_NAME, directory->fd, name },
		{ TARGET_DIRECTORY, new_directory->fd, NULL },
		{ TARGET_NAME, new_directory->fd, new_name },
	};
	struct caller caller;
	int error;

	if (!caller_begin(&caller, req, TARGETS(targets)))
		return errno;
	do {
		error = renameat2(directory->fd, name,
				  new_directory->fd, new_name, flags) ? errno : 0;
	} while (caller_should_retry(&caller, error));
	return error;
}

/*
 * Renames; with the option revoke_on_unlink the tokens of a replaced file are revoked. Returns an
 * errno, or 0.
 */
static int rename_and_revoke(fuse_req_t req, const struct inode *directory, const char *name,
			     const struct inode *new_directory, const char *new_name,
			     unsigned int flags)
{
	struct unlinked_file replaced = revoke_on_unlink_begin(new_directory, new_name);
	int error = rename_as_caller(req, directory, name, new_directory, new_name, flags);

	revoke_on_unlink_end(&replaced);
	return error;
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
	       const char *new_name, unsigned int flags)
{
	struct inode *directory = use_node(req, parent);
	struct inode *new_directory = directory ? use_node(req, new_parent) : NULL;

	if (new_directory) {
		fuse_reply_err(req, rename_and_revoke(req, directory, name, new_directory, new_name,
						      flags));
		inode_end_use(new_directory);
	}
	if (directory)
		inode_end_use(directory);
}
