/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For how long the kernel may use what it has cached: names, attributes and data. */
#ifndef CACHE_H
#define CACHE_H

#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <sys/stat.h>

/* The option cache: for how long the kernel may use names and attributes without asking again. */
enum cache_mode {
	CACHE_AUTO,             /* a second */
	CACHE_NONE,             /* not at all */
	CACHE_ALWAYS,           /* a day: nobody changes the source directory itself */
};

/*
 * Sets the mode. @honours_set_id: the mount has the option suid, so programs on it run with the
 * rights that set-ID bits and file capabilities give them.
 */
void cache_begin(enum cache_mode mode, bool honours_set_id);

/*
 * Returns for how many seconds the kernel may use a name, or attributes that give no rights. A
 * change that is made in the source directory itself can stay unseen for so long.
 */
double cache_seconds(void);

/*
 * Returns true if the file of an O_PATH descriptor has file capabilities and the mount honours
 * them: @has_capabilities of cache_attribute_seconds().
 */
bool has_file_capabilities(int fd);

/*
 * Returns for how many seconds the kernel may use the attributes of a file: 0 if the file gives
 * rights to the process that executes it, by set-ID bits or file capabilities. The source's file
 * system removes both when the file is written, and the kernel must not go on honouring them.
 */
double cache_attribute_seconds(const struct stat *attr, bool has_capabilities);

/*
 * Sets whether data that was read stays cached after the last close. For a file with passthrough it
 * does not: the kernel refuses the flag, and passthrough uses the page cache of the source.
 */
void cache_open_file(struct fuse_file_info *info);

/* Sets whether the entries of a directory are cached, also after the last close. */
void cache_open_directory(struct fuse_file_info *info);

#endif
