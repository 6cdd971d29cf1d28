/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptors of nodes: which nodes keep one, and which lose theirs. */
#include <stdlib.h>
#include <unistd.h>

#include "limits/descriptor-limit.h"
#include "nodes/descriptors.h"
#include "nodes/handle.h"
#include "nodes/inode.h"

/*
 * In descriptors: enough for the files of all directories that a program works in. Each of them
 * holds about 1 KiB of the kernel's memory.
 */
#define DESCRIPTORS_MAX 16384u

/*
 * Nodes to look at for one that can lose its descriptor. There may be none: on a file system
 * without handles, or when all files are open.
 */
#define TRIES_MAX 32

/* Descriptors to close when the process is at its limit: more than a request needs. */
#define SPARE_DESCRIPTORS 16

/*
 * Nodes that have a descriptor, nearly in the order of their last use: a node that was used since
 * the list last came to it goes to the end again.
 */
static struct {
	pthread_mutex_t lock;
	TAILQ_HEAD(, inode) order;
	size_t count, max;
} descriptors = {
	.lock = PTHREAD_MUTEX_INITIALIZER, .order = TAILQ_HEAD_INITIALIZER(descriptors.order),
};

/*
 * Takes the descriptor from a node that is not in use. Returns it for the caller to close, or -1 if
 * the node keeps it. Caller holds the node's lock.
 */
static int take_descriptor(struct inode *inode)
{
	int fd = inode->fd;

	if (inode->descriptor.is_recently_used || inode->users) {
		inode->descriptor.is_recently_used = false;
		return -1;
	}
	if (!inode->descriptor.handle)
		inode->descriptor.handle = handle_make(fd);
	if (!inode->descriptor.handle)
		return -1;
	inode->fd = -1;
	return fd;
}

/*
 * Takes the descriptor of the oldest node. If the node must keep it, moves the node to the end of
 * the list and returns -1. Caller holds the list's lock.
 */
static int take_oldest(void)
{
	struct inode *inode = TAILQ_FIRST(&descriptors.order);
	int fd = -1;

	TAILQ_REMOVE(&descriptors.order, inode, descriptor.order);
	/* Waiting could deadlock: the owner of a node's lock may wait for the lock of the list. */
	if (!pthread_mutex_trylock(&inode->lock)) {
		fd = take_descriptor(inode);
		pthread_mutex_unlock(&inode->lock);
	}
	if (fd < 0) {
		TAILQ_INSERT_TAIL(&descriptors.order, inode, descriptor.order);
	} else {
		inode->descriptor.is_listed = false;
		descriptors.count--;
	}
	return fd;
}

/*
 * Closes one descriptor if there are more than @max. Returns false if none was closed. The lock is
 * not held while closing, which can take long if it is the end of a removed file.
 */
static bool close_one(size_t max)
{
	int fd = -1;

	pthread_mutex_lock(&descriptors.lock);
	for (int i = 0; i < TRIES_MAX && fd < 0 && descriptors.count > max; i++)
		fd = take_oldest();
	pthread_mutex_unlock(&descriptors.lock);
	if (fd < 0)
		return false;
	close(fd);
	return true;
}

/* Called when the process is at its limit. Returns false if no descriptor was closed. */
static bool close_spare(void)
{
	bool closed = false;

	for (int i = 0; i < SPARE_DESCRIPTORS && close_one(0); i++)
		closed = true;
	return closed;
}

void descriptors_begin(size_t limit)
{
	descriptor_limit_set_reserve(close_spare);
	descriptors.max = limit / 2 < DESCRIPTORS_MAX ? limit / 2 : DESCRIPTORS_MAX;
}

size_t descriptors_count(void)
{
	size_t count;

	pthread_mutex_lock(&descriptors.lock);
	count = descriptors.count;
	pthread_mutex_unlock(&descriptors.lock);
	return count;
}

void descriptors_add(struct inode *inode)
{
	pthread_mutex_lock(&descriptors.lock);
	TAILQ_INSERT_TAIL(&descriptors.order, inode, descriptor.order);
	inode->descriptor.is_listed = true;
	descriptors.count++;
	pthread_mutex_unlock(&descriptors.lock);
	/* Closes two, so that the number falls to the limit again after many nodes were in use. */
	if (close_one(descriptors.max))
		close_one(descriptors.max);
}

void descriptors_remove(struct inode *inode)
{
	pthread_mutex_lock(&descriptors.lock);
	if (inode->descriptor.is_listed) {
		TAILQ_REMOVE(&descriptors.order, inode, descriptor.order);
		descriptors.count--;
	}
	pthread_mutex_unlock(&descriptors.lock);
}
