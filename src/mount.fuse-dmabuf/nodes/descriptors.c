/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdlib.h>
#include <unistd.h>

#include "limits/descriptor-limit.h"
#include "nodes/descriptors.h"
#include "nodes/handle.h"
#include "nodes/inode.h"

/* The files of all the directories that a program works in. Each keeps about a KiB of the kernel's memory. */
#define MAX 16384u

/* Nodes that are passed over for one that can be closed: a file system without handles, all files open. */
#define TRIES 32

/* When the process is at its limit: more than a request needs. */
#define SPARE 16

/* In the order of their last use, nearly: one that was used since it was last looked at goes to the end again. */
static struct {
	pthread_mutex_t lock;
	TAILQ_HEAD(, inode) order;
	size_t count, max;
} descriptors = {
	.lock = PTHREAD_MUTEX_INITIALIZER, .order = TAILQ_HEAD_INITIALIZER(descriptors.order),
};

/* Takes the descriptor of a node that nobody uses. The node's lock is held. -1: it must keep it. */
static int take(struct inode *inode)
{
	int fd = inode->fd;

	if (inode->descriptor.used_lately || inode->users) {
		inode->descriptor.used_lately = false;
		return -1;
	}
	if (!inode->descriptor.handle)
		inode->descriptor.handle = handle_make(fd);
	if (!inode->descriptor.handle)
		return -1;
	inode->fd = -1;
	return fd;
}

/* The oldest one's, if it can be had; else that goes to the end. */
static int take_oldest(void)
{
	struct inode *inode = TAILQ_FIRST(&descriptors.order);
	int fd = -1;

	TAILQ_REMOVE(&descriptors.order, inode, descriptor.order);
	/* Whoever holds this lock may wait for that of the list. */
	if (!pthread_mutex_trylock(&inode->lock)) {
		fd = take(inode);
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

/* Closing can take long, when it is the end of a removed file. */
static bool close_one(size_t max)
{
	int fd = -1;

	pthread_mutex_lock(&descriptors.lock);
	for (int i = 0; i < TRIES && fd < 0 && descriptors.count > max; i++)
		fd = take_oldest();
	pthread_mutex_unlock(&descriptors.lock);
	if (fd < 0)
		return false;
	close(fd);
	return true;
}

/* When the process is at its limit. */
static bool close_some(void)
{
	bool closed = false;

	for (int i = 0; i < SPARE && close_one(0); i++)
		closed = true;
	return closed;
}

void descriptors_begin(size_t limit)
{
	descriptor_limit_set_reserve(close_some);
	descriptors.max = limit / 2 < MAX ? limit / 2 : MAX;
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
	/* Two, so that there are fewer again after many were in use. */
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
