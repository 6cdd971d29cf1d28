/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The option revoke_on_unlink: a file that loses its last name loses its tokens. */
#ifndef REMOVAL_H
#define REMOVAL_H

#include "inode.h"

void removal_enable(void);

/* Before the name is removed or replaced: the node, if it may have tokens. NULL: none. */
struct inode *removal_begin(const struct inode *directory, const char *name);

/* After it, whether that succeeded or not. Takes NULL. */
void removal_end(struct inode *inode);

#endif
