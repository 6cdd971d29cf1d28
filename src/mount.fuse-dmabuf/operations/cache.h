/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How long the kernel may believe what it was told. */
#ifndef CACHE_H
#define CACHE_H

#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <sys/stat.h>

/* For how long the kernel may believe what it was told of names and attributes. */
enum cache_mode {
	CACHE_AUTO,             /* a second */
	CACHE_NONE,
	CACHE_ALWAYS,           /* nobody changes the source directory itself */
};

/* honours_set_id: programs on the mount run with the rights that their files give them (mount option suid). */
void cache_begin(enum cache_mode mode, bool honours_set_id);

/*
 * For a name or an attribute: so long may a change that was made in the source directory itself stay unseen.
 */
double cache_seconds(void);

/*
 * Returns true if the file gives capabilities to who runs it, where that counts. Of an O_PATH descriptor.
 */
bool cache_is_privileged(int fd);

/*
 * For the attributes of a file: 0 for one that gives rights to who runs it, by set-ID bits or because it is
 * @privileged. The file below takes both away when it is written to, and the kernel must not go on with them.
 */
double cache_attribute_seconds(const struct stat *attr, bool privileged);

/*
 * Sets whether what was read outlives the last close. Of files only where it goes through the server: the
 * kernel refuses it for passthrough, which has the cache of the source.
 */
void cache_open_file(struct fuse_file_info *info);
void cache_open_directory(struct fuse_file_info *info);

#endif
