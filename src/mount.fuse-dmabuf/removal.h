/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The option revoke_on_unlink: a file that loses its last name loses its tokens. */
#ifndef REMOVAL_H
#define REMOVAL_H

#include "inode.h"

void removal_enable(void);

struct removal {
	struct inode *target;   /* NULL: it has no tokens */
	bool no_tokens;         /* nobody had any */
};

/* Before the name is removed or replaced. */
struct removal removal_begin(const struct inode *directory, const char *name);

/* After it, whether that succeeded or not. */
void removal_end(struct removal *removal);

#endif
