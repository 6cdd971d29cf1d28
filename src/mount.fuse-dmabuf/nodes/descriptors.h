/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptors of nodes. Their number is limited if the source has file handles: a node that was not
 * used for long gives up its descriptor, and is opened by its handle when it is used again.
 */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

struct inode;

/*
 * State of a node's descriptor. The lock of the list protects order and is_listed, the lock of the
 * node protects the rest.
 */
struct inode_descriptor {
	TAILQ_ENTRY(inode) order;
	bool is_listed;
	bool is_by_handle;              /* opened by handle: the kernel may not know its name */
	bool is_recently_used;          /* used since the list last came to the node */
	struct file_handle *handle;     /* NULL if not made yet */
};

/* Sets the limits. @limit is the number of descriptors that the process may have. */
void descriptors_begin(size_t limit);

/* Returns the number of nodes that have a descriptor now. */
size_t descriptors_count(void);

/*
 * Adds a node that got a descriptor to the list. Other nodes may lose theirs for it. Caller holds
 * no node's lock.
 */
void descriptors_add(struct inode *inode);

/* Removes an ending node from the list. Its descriptor stays open. */
void descriptors_remove(struct inode *inode);

#endif
