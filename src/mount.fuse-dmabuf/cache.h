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

/* Sets whether data and directory entries outlive the last close. */
void cache_open(struct fuse_file_info *info);

#endif
