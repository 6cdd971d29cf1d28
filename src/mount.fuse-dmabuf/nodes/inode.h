/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nodes/ has the nodes that the kernel knows, their descriptors, and passthrough. Each is one inode of the source; all names of a file lead to the same node.
 * An O_PATH descriptor holds it, so that its device and inode number cannot be given to another file meanwhile.
 * A node that is not in use may have lost that, and has a file handle instead: see descriptors.h.
 * May call: containers, identity, limits, log.
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
	uint64_t nodeid;        /* the kernel's name for it */
	struct file_identity identity;
	uint64_t lookups;       /* how often the kernel was told; the node ends at 0 */
	bool stale;             /* its file is gone, and the numbers above are another's by now */
	atomic_bool names_looked_up; /* in this directory, since the kernel knows it */

	pthread_mutex_t lock;   /* of what follows */
	int fd;                 /* O_PATH; stays as it is while the node is in use; -1: none */
	unsigned int users;
	bool forgotten;         /* the last user ends it */
	struct inode_descriptor descriptor;
	struct inode_backing backing;
};

/* Takes over the descriptor. False: out of memory. */
bool inodes_begin(int root_fd);
void inodes_end(void);

/*
 * NULL: there is none. A file that was forgotten gets the same nodeid again, so that handles of files on the mount
 * last.
 */
struct inode *inode_from_nodeid(fuse_ino_t nodeid);

/*
 * The node of an O_PATH descriptor, with one more lookup, and its attributes. Takes over the descriptor,
 * also on failure. NULL: see errno.
 */
struct inode *inode_lookup(int fd, struct stat *attr);

void inode_forget(struct inode *inode, uint64_t lookups);

/*
 * From now on it has a descriptor, and lasts, although the kernel may forget it as soon as it is answered.
 * False: see errno; ESTALE: the file is gone.
 */
bool inode_use(struct inode *inode);
void inode_end_use(struct inode *inode);

/* Keeps a node that is in use: it stays so, whatever the kernel forgets. */
void inode_keep(struct inode *inode);
void inode_let_go(struct inode *inode);

/* The node of a descriptor's file, kept, if the kernel knows it and it is in use. NULL: it is not. */
struct inode *inode_find_used(int fd);

/* inode-open.c: for reopen(). False: explained in the log. */
bool inode_open_begin(void);
void inode_open_end(void);

/* openat() of one name below a node in use, never through a symbolic link. */
int inode_open_child(const struct inode *parent, const char *name);

/* Whether it can only be appended to (chattr +a), now. Of a node in use. */
bool inode_is_append_only(const struct inode *inode);

/* Another descriptor of the same file, with the flags given. */
int reopen(int fd, int flags);

/* "/proc/self/fd/N": for the system calls that take no O_PATH descriptor. */
#define INODE_PATH_MAX 32
const char *fd_path(int fd, char path[INODE_PATH_MAX]);
const char *inode_path(const struct inode *inode, char path[INODE_PATH_MAX]);

/* Where the file is now, below the source. "": that cannot be found out. */
#define INODE_NAME_MAX 4096
const char *inode_name(const struct inode *inode, char name[INODE_NAME_MAX]);

#endif
