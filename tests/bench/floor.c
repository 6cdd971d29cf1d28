/*
 * floor MOUNTPOINT: the least that a FUSE server can do, to see what it could reach at best.
 *
 * The server answers from memory, in one thread. It knows only the files that metadata.py makes:
 * the directories d0 to d99, and in dN the files whose number ends with N. The files are empty.
 */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 317
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DIRECTORIES	100
#define FILES		2000000

/* nodeids */
#define DIRECTORY	2
#define FILE_0		(DIRECTORY + DIRECTORIES)

static bool exists[FILES];

static struct stat attributes(fuse_ino_t ino)
{
	mode_t mode = ino < FILE_0 ? S_IFDIR | 0755 : S_IFREG | 0644;

	return (struct stat){ .st_ino = ino, .st_mode = mode, .st_nlink = 1 };
}

static struct fuse_entry_param entry_of(fuse_ino_t ino)
{
	return (struct fuse_entry_param){
		.ino = ino, .attr = attributes(ino), .attr_timeout = 1, .entry_timeout = 1,
	};
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	bool directory = parent == FUSE_ROOT_ID && *name == 'd';
	unsigned long number = strtoul(name + directory, NULL, 10);
	struct fuse_entry_param entry = entry_of(number + (directory ? DIRECTORY : FILE_0));

	if (directory || (number < FILES && exists[number]))
		fuse_reply_entry(req, &entry);
	else
		fuse_reply_err(req, ENOENT);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
	fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	struct stat attr = attributes(ino);

	fuse_reply_attr(req, &attr, 1);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *info)
{
	unsigned long number = strtoul(name, NULL, 10) % FILES;
	struct fuse_entry_param entry = entry_of(FILE_0 + number);

	exists[number] = true;
	info->noflush = 1;
	fuse_reply_create(req, &entry, info);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	info->noflush = 1;
	fuse_reply_open(req, info);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	fuse_reply_err(req, 0);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	exists[strtoul(name, NULL, 10) % FILES] = false;
	fuse_reply_err(req, 0);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		       struct fuse_file_info *info)
{
	static char buffer[1 << 20];
	unsigned long number = (unsigned long)offset * DIRECTORIES + (ino - DIRECTORY);
	size_t used = 0, added;
	struct stat attr;
	char name[24];

	for (; number < FILES && exists[number]; number += DIRECTORIES, used += added) {
		snprintf(name, sizeof(name), "%lu", number);
		attr = attributes(FILE_0 + number);
		added = fuse_add_direntry(req, buffer + used, size - used, name, &attr, ++offset);
		if (added > size - used)
			break;
	}
	fuse_reply_buf(req, buffer, used);
}

static const struct fuse_lowlevel_ops operations = {
	.lookup = op_lookup, .forget = op_forget, .getattr = op_getattr, .create = op_create,
	.open = op_open, .release = op_release, .unlink = op_unlink, .opendir = op_open,
	.readdir = op_readdir, .releasedir = op_release,
};

int main(int argc, char **argv)
{
	char *words[] = { "floor", "-oallow_other,default_permissions", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(2, words);
	struct fuse_session *session =
		fuse_session_new(&args, &operations, sizeof(operations), NULL);

	if (argc != 2 || !session || fuse_session_mount(session, argv[1]))
		return 1;
	fuse_session_loop(session);
	fuse_session_unmount(session);
	return 0;
}
