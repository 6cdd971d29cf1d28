/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A table of nodes for tests, whose source is a new directory. */
#ifndef TEST_NODE_H
#define TEST_NODE_H

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "identity/nobody.h"
#include "nodes/descriptors.h"
#include "nodes/inode.h"
#include "nodes/source.h"

static char test_directory[] = "/tmp/fuse-dmabuf-test-XXXXXX";

static inline void nodes_begin(void)
{
	int fd;

	CHECK(mkdtemp(test_directory) && !chmod(test_directory, 0755));
	fd = open(test_directory, O_PATH);
	descriptors_begin(20000);
	nobody_begin(source_is_local(fd));
	CHECK(inodes_begin(fd));
}

static inline struct inode *node_root(void)
{
	return inode_from_nodeid(FUSE_ROOT_ID);
}

/* Looks a name up. If there is no such file, makes one that all users may read and write. */
static inline struct inode *node_lookup(const char *name)
{
	struct inode *inode;
	struct stat attr;
	int fd = openat(node_root()->fd, name, O_CREAT | O_WRONLY, 0600);

	CHECK(fd >= 0 && !fchmod(fd, 0666));
	close(fd);
	inode = inode_lookup(inode_open_child(node_root(), name), &attr);
	CHECK(inode);
	return inode;
}

static inline void node_chmod(const struct inode *inode, mode_t mode)
{
	char path[INODE_PATH_MAX];

	CHECK(!chmod(inode_path(inode, path), mode));
}

static inline void node_remove(const char *name)
{
	CHECK(!unlinkat(node_root()->fd, name, 0));
}

static inline void nodes_end(void)
{
	inodes_end();
	CHECK(!rmdir(test_directory));
}

#endif
