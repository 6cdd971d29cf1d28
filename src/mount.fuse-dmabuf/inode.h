/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The nodes that the kernel knows. Each is one inode of the source, held by an O_PATH descriptor, so that
 * its device and inode number cannot be given to another file meanwhile; all names of a file lead to the
 * same node.
 */
#ifndef INODE_H
#define INODE_H

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct inode {
	struct inode *next;     /* in its bucket */
	dev_t dev;
	ino_t ino;
	uint64_t lookups;       /* how often the kernel was told; the node ends at 0 */
	int fd;                 /* O_PATH */

	/* passthrough.c */
	pthread_mutex_t lock;
	unsigned int opens;     /* files open now */
	int backing_id;         /* shared by all of them; 0: their data goes through the server */

	/* books.c */
	atomic_uint tokens;
};

/* Takes over the descriptor. False: out of memory. */
bool inodes_begin(int root_fd);
void inodes_end(void);

struct inode *inode_from_nodeid(fuse_ino_t nodeid);
fuse_ino_t inode_nodeid(const struct inode *inode);

/*
 * The node of an O_PATH descriptor, with one more lookup, and its attributes. Takes over the descriptor,
 * also on failure. NULL: see errno.
 */
struct inode *inode_lookup(int fd, struct stat *attr);

/* The node of a descriptor's file, kept, if the kernel knows it. NULL: it does not. */
struct inode *inode_find(int fd);

/* Keeps the node; inode_forget() of one lookup lets it go. */
void inode_hold(struct inode *inode);
void inode_forget(struct inode *inode, uint64_t lookups);

/* openat() of one name below a node, never through a symbolic link. */
int inode_open_child(const struct inode *parent, const char *name);

/* Another descriptor of the same file, with the flags given. */
int reopen(int fd, int flags);

/* "/proc/self/fd/N": for the system calls that take no O_PATH descriptor. */
#define INODE_PATH_MAX 32
const char *inode_path(const struct inode *inode, char path[INODE_PATH_MAX]);

/* Where the file is now, below the source: for messages only. */
#define INODE_NAME_MAX 4096
const char *inode_name(const struct inode *inode, char name[INODE_NAME_MAX]);

#endif
