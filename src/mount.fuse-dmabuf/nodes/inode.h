/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nodes/ keeps the nodes, which are the inodes of the source that the kernel knows, with their
 * descriptors and backing ids. This header has the table of nodes.
 * May call: containers, identity, limits, log.
 *
 * All names of a file lead to the same node. A node holds an O_PATH descriptor, so that its device
 * and inode number cannot be given to another file meanwhile. A node that is not in use may have
 * lost the descriptor, and then has a file handle instead: see descriptors.h.
 */
#ifndef INODE_H
#define INODE_H

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "containers/hash-table.h"
#include "nodes/descriptors.h"
#include "nodes/file-identity.h"
#include "nodes/passthrough.h"

struct inode {
	struct hash_link link;
	dev_t dev;
	ino_t ino;
	uint64_t nodeid;        /* the kernel's number for the node */
	struct file_identity identity;
	uint64_t lookups;       /* how often the kernel was told of the node; it ends at 0 */
	/* The file is gone, and another file has the device and inode number by now. */
	bool is_stale;
	/* Names in this directory were looked up since the kernel knows the node. */
	atomic_bool names_looked_up;

	pthread_mutex_t lock;   /* protects the fields below */
	int fd;                 /* O_PATH, or -1; does not change while the node is in use */
	unsigned int users;     /* the node is in use if this is not 0 */
	bool is_forgotten;      /* by the kernel: the end of the last use frees the node */
	struct inode_descriptor descriptor;
	struct inode_backing backing;
};

/*
 * Makes the root node, which takes over the descriptor. Returns false after the log has explained
 * the reason.
 */
bool inodes_begin(int root_fd);

/* Frees all nodes. */
void inodes_end(void);

/*
 * Returns the node, or NULL if there is none. A file that was forgotten gets the same nodeid again,
 * so that handles of files on the mount stay valid.
 */
struct inode *inode_from_nodeid(fuse_ino_t nodeid);

/*
 * Returns the node of an O_PATH descriptor, with one more lookup, and sets its attributes. Takes
 * over the descriptor, also on failure. Returns NULL with errno set on failure.
 */
struct inode *inode_lookup(int fd, struct stat *attr);

/* Subtracts lookups. With the last one the node leaves the table, and is freed when not in use. */
void inode_forget(struct inode *inode, uint64_t lookups);

/*
 * Begins a use of the node: until inode_end_use() the node has a descriptor and is not freed,
 * although the kernel may forget the node as soon as the kernel's request is answered. Returns
 * false with errno set on failure: ESTALE if the file is gone.
 */
bool inode_use(struct inode *inode);

/* Ends a use. Frees the node if this was the last use and the kernel has forgotten the node. */
void inode_end_use(struct inode *inode);

/*
 * Adds a use and a lookup to a node that is in use: the node remains in use, and in the table, also
 * if the kernel forgets it.
 */
void inode_keep(struct inode *inode);

/* Reverts inode_keep(). */
void inode_let_go(struct inode *inode);

/*
 * Returns the node of a descriptor's file, kept as by inode_keep(), or NULL if the kernel does not
 * know the node or it is not in use.
 */
struct inode *inode_find_used(int fd);

/*
 * Prepares reopen(), which is in inode-open.c as all below. Returns false after the log has
 * explained the reason.
 */
bool inode_open_begin(void);

/* Closes the descriptor that reopen() needs. */
void inode_open_end(void);

/*
 * Returns an O_PATH descriptor of the file with a name in a directory, or -1 with errno set.
 * Follows no symbolic link. @parent is in use.
 */
int inode_open_child(const struct inode *parent, const char *name);

/* Returns true if the file can only be appended to now (chattr +a). The node is in use. */
bool inode_is_append_only(const struct inode *inode);

/*
 * Opens the file of a descriptor again, with other flags. Returns the new descriptor, or -1 with
 * errno set.
 */
int reopen(int fd, int flags);

/*
 * Return the path "/proc/self/fd/N" in @path, for system calls that take no O_PATH descriptor. The
 * node is in use.
 */
#define INODE_PATH_MAX 32
const char *fd_path(int fd, char path[INODE_PATH_MAX]);
const char *inode_path(const struct inode *inode, char path[INODE_PATH_MAX]);

/*
 * Returns the present path of the file, relative to the source, in @name, or "" if it cannot be
 * found out. The node is in use.
 */
#define INODE_NAME_MAX 4096
const char *inode_name(const struct inode *inode, char name[INODE_NAME_MAX]);

#endif
