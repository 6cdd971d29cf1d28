/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The descriptors of the nodes. There are at most so many, if the source has file handles: a node that was not
 * used for long gives its descriptor up, and is opened by its handle when it is used again.
 */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

struct inode;

/* What this module knows of a node. The lock of the list protects order and is_listed, that of the node the rest. */
struct inode_descriptor {
	TAILQ_ENTRY(inode) order;
	bool is_listed;
	bool is_by_handle;              /* opened by its handle: the kernel may not know the name */
	bool used_lately;
	struct file_handle *handle;     /* NULL: not made yet */
};

/* How many the process may have in all. */
void descriptors_begin(size_t limit);

/* How many nodes have one now. */
size_t descriptors_count(void);

/* A node got a descriptor: others may lose theirs for it. Not under a node's lock. */
void descriptors_add(struct inode *inode);

/* The node ends. */
void descriptors_remove(struct inode *inode);

#endif
