/* SPDX-License-Identifier: GPL-2.0-or-later */
/* FUSE passthrough: the kernel reads and writes the backing file itself. */
#ifndef PASSTHROUGH_H
#define PASSTHROUGH_H

#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <sys/queue.h>

struct inode;

/*
 * State of a node's backing id. The lock of the list protects idle and is_idle, the lock of the
 * node protects the rest.
 */
struct inode_backing {
	unsigned int opens;             /* open files of the node */
	int id;                         /* backing id, or 0 */
	TAILQ_ENTRY(inode) idle;
	bool is_idle;
};

/* Asks the kernel for passthrough at the start of the connection. The log explains a refusal. */
void passthrough_negotiate(struct fuse_conn_info *connection, int device_fd);

/*
 * Counts an open file of a node that is in use. Sets the backing id for the answer, or 0 if the
 * data must go through the server, as for a file that can only be appended to. Returns false with
 * errno set on failure: EBUSY if the file became append-only while it was open with passthrough.
 * After success the caller must call passthrough_end() once.
 */
bool passthrough_begin(struct inode *inode, bool writes, int *backing_id);

/* Ends the count of one open file. */
void passthrough_end(struct inode *inode);

/* To be called when the connection, and all backing ids with it, have ended. */
void passthrough_disconnect(void);

/* Gives up the backing id of a node that ends. */
void passthrough_forget(struct inode *inode);

#endif
