/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Beginnings and ends that many operations have in common: the node of a request, and the answer. */
#ifndef REPLY_H
#define REPLY_H

#include <fuse_lowlevel.h>

#include "nodes/inode.h"

/* Answers with 0 or errno, by the result of a system call. */
void reply_result(fuse_req_t req, int result);

/* The node, in use until inode_end_use(). NULL: it cannot be; that is answered. */
struct inode *use_node(fuse_req_t req, fuse_ino_t nodeid);

/* The same, for one more open file or directory of the caller's. */
struct inode *use_node_to_open(fuse_req_t req, fuse_ino_t nodeid);

/*
 * Fills in the entry for an O_PATH descriptor, which it takes over, with its node, which has one more lookup. Returns the
 * node, or NULL with errno set.
 */
struct inode *make_entry(int fd, struct fuse_entry_param *entry);

/* Answers with the entry of an O_PATH descriptor, which it takes over; if @fd is negative, with errno. */
void reply_entry(fuse_req_t req, int fd);

#endif
