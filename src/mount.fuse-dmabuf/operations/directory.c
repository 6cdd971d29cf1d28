/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers requests that open, read, sync and close directories. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "limits/open-quota.h"
#include "operations/cache.h"
#include "operations/operations.h"
#include "operations/reply.h"

/* In open files: an open directory, with its buffer, takes as much memory as 3 open files. */
#define DIRECTORY_COST 3u

/* What an answer says about each entry. */
enum detail {
	PLAIN,                  /* READDIR: no node */
	PLUS,                   /* READDIRPLUS: the node and its attributes */
	PLUS_WITHOUT_NODES,     /* READDIRPLUS, with the content of PLAIN */
};

struct directory {
	/*
	 * For an open directory the kernel sends one request after the other, but a request whose
	 * caller was killed may still be running when the next one comes.
	 */
	pthread_mutex_t lock;
	int fd;
	uid_t uid;           /* of the user whose quota of open files counts the directory */
	off_t position;      /* offset in the directory after the last entry that was handed out */
	size_t next, filled; /* offsets in the buffer: of the next entry, and of the end */
	/* 32 KiB, as in glibc: at least a hundred entries with the longest names. */
	alignas(struct dirent64) char buffer[32768];
};

static struct directory *directory_from_info(const struct fuse_file_info *info)
{
	return (struct directory *)(uintptr_t)info->fh;
}

static void free_directory(struct directory *directory)
{
	open_quota_remove(directory->uid, DIRECTORY_COST);
	close(directory->fd);
	pthread_mutex_destroy(&directory->lock);
	free(directory);
}

/* Returns NULL with errno set if the directory cannot be opened. */
static struct directory *open_directory(const struct inode *inode, uid_t uid)
{
	struct directory *directory = malloc(sizeof(*directory));

	if (!directory)
		return NULL;
	directory->fd = reopen(inode->fd, O_RDONLY | O_DIRECTORY);
	if (directory->fd < 0) {
		free(directory);
		return NULL;
	}
	open_quota_add(uid, DIRECTORY_COST);
	directory->uid = uid;
	directory->position = 0;
	directory->next = directory->filled = 0;
	pthread_mutex_init(&directory->lock, NULL);
	return directory;
}

void op_opendir(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *info)
{
	struct inode *inode = use_node_to_open(req, nodeid);
	struct directory *directory;

	if (!inode)
		return;
	directory = open_directory(inode, fuse_req_ctx(req)->uid);
	inode_end_use(inode);
	if (!directory) {
		fuse_reply_err(req, errno);
		return;
	}
	info->fh = (uintptr_t)directory;
	cache_open_directory(info);
	if (fuse_reply_open(req, info) == -ENOENT)
		free_directory(directory);
}

/*
 * Returns the next entry without consuming it, or NULL at the end of the directory (*error is 0) or
 * after an error (*error is an errno).
 */
static struct dirent64 *peek_entry(struct directory *directory, int *error)
{
	ssize_t got;

	*error = 0;
	if (directory->next == directory->filled) {
		got = getdents64(directory->fd, directory->buffer, sizeof(directory->buffer));
		directory->next = 0;
		directory->filled = got > 0 ? (size_t)got : 0;
		if (got <= 0) {
			*error = got ? errno : 0;
			return NULL;
		}
	}
	return (struct dirent64 *)(directory->buffer + directory->next);
}

static void consume_entry(struct directory *directory, const struct dirent64 *dirent)
{
	directory->position = dirent->d_off;
	directory->next += dirent->d_reclen;
}

/* Returns an errno, or 0. */
static int seek_directory(struct directory *directory, off_t offset)
{
	if (offset == directory->position)
		return 0;
	if (lseek(directory->fd, offset, SEEK_SET) < 0)
		return errno;
	directory->position = offset;
	directory->next = directory->filled = 0;
	return 0;
}

static bool is_dot(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/*
 * Adds node and attributes to an entry of READDIRPLUS. An entry that cannot be looked up, for
 * example because it was just removed, stays without a node.
 */
static void complete_entry(const struct inode *parent, const struct dirent64 *dirent,
			   struct fuse_entry_param *entry)
{
	int fd;

	/* The kernel ignores the nodes of "." and "..", and would never forget them. */
	if (is_dot(dirent->d_name))
		return;
	fd = inode_open_child(parent, dirent->d_name);
	if (fd >= 0 && !make_entry(fd, entry))
		entry->ino = 0;
}

/* Returns how many bytes the entry takes. If they are more than @room, it was not added. */
static size_t add_entry(fuse_req_t req, const struct inode *parent, char *buffer, size_t room,
			const struct dirent64 *dirent, enum detail detail)
{
	struct fuse_entry_param entry = {
		.attr = { .st_ino = dirent->d_ino, .st_mode = DTTOIF(dirent->d_type) },
	};
	size_t size;

	if (detail == PLAIN)
		return fuse_add_direntry(req, buffer, room, dirent->d_name, &entry.attr,
					 dirent->d_off);
	size = fuse_add_direntry_plus(req, NULL, 0, dirent->d_name, NULL, 0);
	if (size > room)
		return size;
	if (detail == PLUS)
		complete_entry(parent, dirent, &entry);
	if (!entry.ino)
		entry.attr = (struct stat){
			.st_ino = dirent->d_ino, .st_mode = DTTOIF(dirent->d_type),
		};
	return fuse_add_direntry_plus(req, buffer, room, dirent->d_name, &entry, dirent->d_off);
}

/*
 * Adds as many entries as @buffer holds, and sets *used to their bytes. Returns 0, or the errno
 * of reading the directory; *used can be positive then, too.
 */
static int add_entries(fuse_req_t req, const struct inode *parent, struct directory *directory,
		       char *buffer, size_t size, enum detail detail, size_t *used)
{
	struct dirent64 *dirent;
	size_t added;
	int error;

	*used = 0;
	while ((dirent = peek_entry(directory, &error))) {
		added = add_entry(req, parent, buffer + *used, size - *used, dirent, detail);
		if (added > size - *used)
			break;
		*used += added;
		consume_entry(directory, dirent);
	}
	return error;
}

static void read_directory(fuse_req_t req, const struct inode *inode, size_t size, off_t offset,
			   struct directory *directory, enum detail detail)
{
	char *buffer = malloc(size);
	size_t used = 0;
	int error;

	if (!buffer) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_mutex_lock(&directory->lock);
	error = seek_directory(directory, offset);
	if (!error)
		error = add_entries(req, inode, directory, buffer, size, detail, &used);
	pthread_mutex_unlock(&directory->lock);
	if (error && !used)
		fuse_reply_err(req, error);
	else
		fuse_reply_buf(req, buffer, used);
	free(buffer);
}

void op_readdir(fuse_req_t req, fuse_ino_t nodeid, size_t size, off_t offset,
		struct fuse_file_info *info)
{
	/* Plain entries are not looked up, so the node of the directory need not be in use. */
	read_directory(req, inode_from_nodeid(nodeid), size, offset, directory_from_info(info),
		       PLAIN);
}

/*
 * The kernel sends READDIRPLUS for the beginning of every directory, and further on only if names
 * in the directory were looked up since. Most programs that read a directory look only at the
 * names, and the nodes are most of the work. So the beginning comes with nodes only if names in the
 * directory were looked up before.
 */
static bool wants_nodes(struct inode *inode, off_t offset)
{
	return offset || atomic_load_explicit(&inode->names_looked_up, memory_order_relaxed);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t nodeid, size_t size, off_t offset,
		    struct fuse_file_info *info)
{
	struct inode *inode = use_node(req, nodeid);

	if (!inode)
		return;
	read_directory(req, inode, size, offset, directory_from_info(info),
		       wants_nodes(inode, offset) ? PLUS : PLUS_WITHOUT_NODES);
	inode_end_use(inode);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t nodeid, int datasync, struct fuse_file_info *info)
{
	int fd = directory_from_info(info)->fd;

	(void)nodeid;
	reply_result(req, datasync ? fdatasync(fd) : fsync(fd));
}

void op_releasedir(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *info)
{
	(void)nodeid;
	free_directory(directory_from_info(info));
	fuse_reply_err(req, 0);
}
