/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How long the kernel may believe what it was told. */
#ifndef CACHE_H
#define CACHE_H

#include <fuse_lowlevel.h>

#include "options.h"

void cache_begin(enum cache_mode mode);

/*
 * For a name or an attribute: so long may a change that was made in the source directory itself stay unseen.
 */
double cache_seconds(void);

/*
 * Sets whether what was read outlives the last close. Of files only where it goes through the server: the
 * kernel refuses it for passthrough, which has the cache of the source.
 */
void cache_open_file(struct fuse_file_info *info);
void cache_open_directory(struct fuse_file_info *info);

#endif
