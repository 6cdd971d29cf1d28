/* SPDX-License-Identifier: GPL-2.0-or-later */
/* FUSE passthrough: the kernel reads and writes the backing file itself. */
#ifndef PASSTHROUGH_H
#define PASSTHROUGH_H

#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <sys/queue.h>

struct inode;

/* What this module knows of a node. The lock of the list protects idle and is_idle, that of the node the rest. */
struct inode_backing {
	unsigned int opens;             /* files open now */
	int id;                         /* 0: none */
	TAILQ_ENTRY(inode) idle;
	bool is_idle;
};

/* Asks for it at the start of the connection. */
void passthrough_negotiate(struct fuse_conn_info *connection, int device_fd);

/*
 * A file is opened, whose node is in use. Sets the backing id for the answer, or 0 when its data must go through the
 * server, as that of a file that can only be appended to. False: see errno; EBUSY: it became such a file while it was
 * open with passthrough. Each success needs its passthrough_end().
 */
bool passthrough_begin(struct inode *inode, bool writes, int *backing_id);
void passthrough_end(struct inode *inode);

/* The connection has ended, and all ids with it. */
void passthrough_disconnect(void);

/* The node ends. */
void passthrough_forget(struct inode *inode);

#endif
