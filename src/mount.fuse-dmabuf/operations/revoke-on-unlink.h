/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The option revoke_on_unlink: a file that loses its last name loses its tokens. */
#ifndef REMOVAL_H
#define REMOVAL_H

#include "nodes/inode.h"

void removal_enable(void);

struct removal {
	int fd;                 /* the file of that name; -1: none, or not looked for */
	bool unknown;           /* which file it is */
};

/* Before the name is removed or replaced. */
struct removal removal_begin(const struct inode *directory, const char *name);

/* After it, whether that succeeded or not. */
void removal_end(struct removal *removal);

#endif
