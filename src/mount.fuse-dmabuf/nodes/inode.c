/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of nodes: finds, adds, keeps and frees them. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log/log.h"
#include "nodes/descriptors.h"
#include "nodes/handle.h"
#include "nodes/inode.h"
#include "nodes/passthrough.h"

static struct {
	pthread_mutex_t lock;
	struct inode root;
	struct hash_table nodes;        /* by key_of() */
} table = { .lock = PTHREAD_MUTEX_INITIALIZER };

/*
 * A nodeid is made from the inode number. If the low bits of two files are equal, the high bits
 * differ: for files of btrfs subvolumes, for huge inode numbers, and for a stale file whose number
 * another file has by now. The key in the hash table is the low bits alone.
 */
#define NUMBER_BITS 48
#define NUMBER_MASK ((1ull << NUMBER_BITS) - 1)

/* The multiplication spreads consecutive numbers over the high bits. */
static uint64_t spread(uint64_t number)
{
	return number * 0x9e3779b97f4a7c15u;
}

static uint64_t key_of(dev_t dev, ino_t ino)
{
	return (ino ^ (dev == table.root.dev ? 0 : spread(dev))) & NUMBER_MASK;
}

static struct inode *inode_of(struct hash_link *link)
{
	return link ? hash_entry(link, struct inode, link) : NULL;
}

static struct inode *find_nodeid(uint64_t nodeid)
{
	struct hash_link *link = hash_table_find(&table.nodes, nodeid & NUMBER_MASK);

	while (link && inode_of(link)->nodeid != nodeid)
		link = hash_table_find_next(link);
	return inode_of(link);
}

static uint64_t new_nodeid(dev_t dev, ino_t ino)
{
	uint64_t nodeid = key_of(dev, ino);

	while (nodeid <= FUSE_ROOT_ID || find_nodeid(nodeid))
		nodeid += NUMBER_MASK + 1;
	return nodeid;
}

static bool has_numbers(const struct inode *inode, dev_t dev, ino_t ino)
{
	return inode->ino == ino && inode->dev == dev && !inode->is_stale;
}

static struct inode *find_numbers(dev_t dev, ino_t ino)
{
	struct hash_link *link = hash_table_find(&table.nodes, key_of(dev, ino));

	while (link && !has_numbers(inode_of(link), dev, ino))
		link = hash_table_find_next(link);
	return inode_of(link);
}

static void free_inode(struct inode *inode)
{
	passthrough_forget(inode);
	descriptors_remove(inode);
	if (inode->fd >= 0)
		close(inode->fd);
	free(inode->descriptor.handle);
	pthread_mutex_destroy(&inode->lock);
	free(inode);
}

bool inodes_begin(int root_fd)
{
	struct stat attr;

	if (fstat(root_fd, &attr)) {
		log_error("source: its attributes cannot be read: %s", strerror(errno));
		return false;
	}
	if (!inode_open_begin())
		return false;
	table.root.fd = root_fd;
	table.root.nodeid = FUSE_ROOT_ID;
	table.root.dev = attr.st_dev;
	file_identity_begin(root_fd, attr.st_dev);
	handles_begin(root_fd);
	pthread_mutex_init(&table.root.lock, NULL);
	return true;
}

void inodes_end(void)
{
	struct hash_link *link, *next;

	for (link = hash_table_walk(&table.nodes, NULL); link; link = next) {
		next = hash_table_walk(&table.nodes, link);
		free_inode(inode_of(link));
	}
	hash_table_clear(&table.nodes);
	handles_end();
	inode_open_end();
	close(table.root.fd);
	pthread_mutex_destroy(&table.root.lock);
}

struct inode *inode_from_nodeid(fuse_ino_t nodeid)
{
	struct inode *inode;

	if (nodeid == FUSE_ROOT_ID)
		return &table.root;
	pthread_mutex_lock(&table.lock);
	inode = find_nodeid(nodeid);
	pthread_mutex_unlock(&table.lock);
	return inode;
}

static struct inode *new_inode(int fd, const struct stat *attr,
			       const struct file_identity *identity)
{
	struct inode *inode = calloc(1, sizeof(*inode));

	if (!inode)
		return NULL;
	inode->dev = attr->st_dev;
	inode->ino = attr->st_ino;
	inode->nodeid = new_nodeid(attr->st_dev, attr->st_ino);
	inode->identity = *identity;
	inode->fd = fd;
	pthread_mutex_init(&inode->lock, NULL);
	hash_table_add(&table.nodes, &inode->link, key_of(attr->st_dev, attr->st_ino));
	return inode;
}

/*
 * Returns the node with these numbers, or a new one, with one more lookup; NULL if memory is short.
 * Sets *added if the node is new: it has then taken over the descriptor.
 */
static struct inode *find_or_add(int fd, const struct stat *attr,
				 const struct file_identity *identity, bool *added)
{
	struct inode *inode;

	pthread_mutex_lock(&table.lock);
	inode = find_numbers(attr->st_dev, attr->st_ino);
	*added = !inode;
	if (!inode)
		inode = new_inode(fd, attr, identity);
	if (inode)
		inode->lookups++;
	pthread_mutex_unlock(&table.lock);
	return inode;
}

/*
 * Returns true if the node is of the descriptor's file. A node that has a descriptor itself always
 * is: both files exist now, and have the same numbers. The node may take over *fd; *fd is set to
 * the descriptor that the caller has to close, or to -1.
 */
static bool join_descriptor(struct inode *inode, int *fd)
{
	bool fits = true, needed = false;
	int previous;

	pthread_mutex_lock(&inode->lock);
	previous = inode->fd;
	if (previous < 0)
		fits = needed = handle_fits(inode->descriptor.handle, *fd);
	else if (inode->descriptor.is_by_handle && !inode->users)
		needed = true;
	if (needed) {
		inode->fd = *fd;
		inode->descriptor.is_by_handle = false;
		*fd = previous;
	}
	pthread_mutex_unlock(&inode->lock);
	if (needed && previous < 0)
		descriptors_add(inode);
	return fits;
}

/*
 * Marks a node whose file is gone, and ends the lookup of find_or_add(). The kernel still knows the
 * node, and gets ESTALE for it.
 */
static void set_stale(struct inode *inode)
{
	pthread_mutex_lock(&table.lock);
	inode->is_stale = true;
	pthread_mutex_unlock(&table.lock);
	inode_forget(inode, 1);
}

/*
 * Returns the node of the descriptor's file, which takes over the descriptor. Returns NULL with
 * errno set, and leaves the descriptor, if memory is short.
 */
static struct inode *node_of(int fd, const struct stat *attr, const struct file_identity *identity)
{
	struct inode *inode;
	bool added;

	while ((inode = find_or_add(fd, attr, identity, &added))) {
		if (added) {
			descriptors_add(inode);
			return inode;
		}
		if (join_descriptor(inode, &fd)) {
			if (fd >= 0)
				close(fd);
			return inode;
		}
		set_stale(inode);
	}
	errno = ENOMEM;
	return NULL;
}

struct inode *inode_lookup(int fd, struct stat *attr)
{
	struct inode *inode = NULL;
	struct file_identity identity;
	int saved;

	if (file_identity_read(fd, attr, &identity))
		inode = node_of(fd, attr, &identity);
	if (!inode) {
		saved = errno;
		close(fd);
		errno = saved;
	}
	return inode;
}

/* It is not in the table any more. */
static void end_inode(struct inode *inode)
{
	bool used;

	pthread_mutex_lock(&inode->lock);
	inode->is_forgotten = true;
	used = inode->users;
	pthread_mutex_unlock(&inode->lock);
	if (!used)
		free_inode(inode);
}

void inode_forget(struct inode *inode, uint64_t lookups)
{
	bool last;

	if (inode == &table.root)
		return;
	pthread_mutex_lock(&table.lock);
	inode->lookups -= lookups < inode->lookups ? lookups : inode->lookups;
	last = !inode->lookups;
	if (last)
		hash_table_remove(&table.nodes, &inode->link);
	pthread_mutex_unlock(&table.lock);
	if (last)
		end_inode(inode);
}

void inode_end_use(struct inode *inode)
{
	bool last;

	pthread_mutex_lock(&inode->lock);
	last = !--inode->users && inode->is_forgotten;
	pthread_mutex_unlock(&inode->lock);
	if (last)
		free_inode(inode);
}

void inode_keep(struct inode *inode)
{
	pthread_mutex_lock(&table.lock);
	inode->lookups++;
	pthread_mutex_unlock(&table.lock);
	inode_use(inode);
}

void inode_let_go(struct inode *inode)
{
	inode_end_use(inode);
	inode_forget(inode, 1);
}

struct inode *inode_find_used(int fd)
{
	struct inode *inode;
	struct stat attr;
	bool used;

	if (fstat(fd, &attr))
		return NULL;
	pthread_mutex_lock(&table.lock);
	inode = find_numbers(attr.st_dev, attr.st_ino);
	if (inode)
		inode->lookups++;
	pthread_mutex_unlock(&table.lock);
	if (!inode)
		return NULL;
	pthread_mutex_lock(&inode->lock);
	used = inode->users;
	inode->users += used;
	pthread_mutex_unlock(&inode->lock);
	if (used)
		return inode;
	inode_forget(inode, 1);
	return NULL;
}
