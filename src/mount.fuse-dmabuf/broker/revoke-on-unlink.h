/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The option revoke_on_unlink: a file that loses its last name loses its tokens. */
#ifndef REVOKE_ON_UNLINK_H
#define REVOKE_ON_UNLINK_H

#include "nodes/inode.h"

void revoke_on_unlink_enable(void);

struct unlinked_file {
	int fd;                 /* the file of that name; -1: none, or not looked for */
	bool unknown;           /* which file it is */
};

/* Before the name is removed or replaced. */
struct unlinked_file revoke_on_unlink_begin(const struct inode *directory, const char *name);

/* After it, whether that succeeded or not. */
void revoke_on_unlink_end(struct unlinked_file *removal);

#endif
