/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What many operations have in common: using the node of a request, and replying. */
#ifndef REPLY_H
#define REPLY_H

#include <fuse_lowlevel.h>

#include "nodes/inode.h"

/* Answers with errno if @result, of a system call, is negative, else with 0. */
void reply_result(fuse_req_t req, int result);

/*
 * Returns the node, in use until inode_end_use(). Returns NULL if the node cannot be used; the
 * request has been answered with the error then.
 */
struct inode *use_node(fuse_req_t req, fuse_ino_t nodeid);

/*
 * Does the same as use_node() for a request that opens a file or directory. If the user has too
 * many files open, the answer is ENFILE.
 */
struct inode *use_node_to_open(fuse_req_t req, fuse_ino_t nodeid);

/*
 * Fills in the entry for the file of an O_PATH descriptor. Takes over the descriptor. Returns the
 * node, which has one more lookup, or NULL with errno set.
 */
struct inode *make_entry(int fd, struct fuse_entry_param *entry);

/*
 * Answers with the entry for the file of an O_PATH descriptor, or with errno if @fd is negative.
 * Takes over the descriptor.
 */
void reply_entry(fuse_req_t req, int fd);

#endif
