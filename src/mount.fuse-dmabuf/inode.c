/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "descriptors.h"
#include "handle.h"
#include "inode.h"
#include "log.h"
#include "passthrough.h"

/* Doubled whenever there are as many nodes as buckets. */
#define FIRST_BUCKETS 1024u

static struct {
	pthread_mutex_t lock;
	struct inode root;
	struct inode **buckets;
	size_t bucket_count;    /* a power of two */
	size_t count;
	int own_fds;            /* /proc/self/fd: from there it is a shorter way */
} table = { .lock = PTHREAD_MUTEX_INITIALIZER };

static size_t bucket_of(dev_t dev, ino_t ino, size_t bucket_count)
{
	/* Inode numbers are often consecutive: the multiplication spreads them over the high bits. */
	uint64_t hash = ((uint64_t)ino ^ ((uint64_t)dev << 32)) * 0x9e3779b97f4a7c15u;

	return (size_t)(hash >> 32) & (bucket_count - 1);
}

static struct inode **slot_of(dev_t dev, ino_t ino)
{
	struct inode **slot = &table.buckets[bucket_of(dev, ino, table.bucket_count)];

	while (*slot && ((*slot)->ino != ino || (*slot)->dev != dev || (*slot)->stale))
		slot = &(*slot)->next;
	return slot;
}

/* Failure is harmless: chains grow longer. */
static void grow(void)
{
	size_t bucket_count = table.bucket_count * 2;
	struct inode **buckets = calloc(bucket_count, sizeof(*buckets));
	struct inode *inode, *next, **slot;

	if (!buckets)
		return;
	for (size_t i = 0; i < table.bucket_count; i++) {
		for (inode = table.buckets[i]; inode; inode = next) {
			next = inode->next;
			slot = &buckets[bucket_of(inode->dev, inode->ino, bucket_count)];
			inode->next = *slot;
			*slot = inode;
		}
	}
	free(table.buckets);
	table.buckets = buckets;
	table.bucket_count = bucket_count;
}

static void free_inode(struct inode *inode)
{
	passthrough_forget(inode);
	descriptors_remove(inode);
	if (inode->fd >= 0)
		close(inode->fd);
	free(inode->handle);
	pthread_mutex_destroy(&inode->lock);
	free(inode);
}

bool inodes_begin(int root_fd)
{
	table.buckets = calloc(FIRST_BUCKETS, sizeof(*table.buckets));
	if (!table.buckets) {
		log_error("out of memory");
		return false;
	}
	table.own_fds = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (table.own_fds < 0) {
		log_error("/proc/self/fd: %s", strerror(errno));
		return false;
	}
	table.bucket_count = FIRST_BUCKETS;
	table.root.fd = root_fd;
	handles_begin(root_fd);
	pthread_mutex_init(&table.root.lock, NULL);
	return true;
}

void inodes_end(void)
{
	struct inode *inode, *next;

	for (size_t i = 0; i < table.bucket_count; i++) {
		for (inode = table.buckets[i]; inode; inode = next) {
			next = inode->next;
			free_inode(inode);
		}
	}
	free(table.buckets);
	table.buckets = NULL;
	table.bucket_count = table.count = 0;
	handles_end();
	close(table.own_fds);
	close(table.root.fd);
	pthread_mutex_destroy(&table.root.lock);
}

struct inode *inode_from_nodeid(fuse_ino_t nodeid)
{
	return nodeid == FUSE_ROOT_ID ? &table.root : (struct inode *)(uintptr_t)nodeid;
}

fuse_ino_t inode_nodeid(const struct inode *inode)
{
	return inode == &table.root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)inode;
}

static struct inode *new_inode(int fd, const struct stat *attr)
{
	struct inode *inode = calloc(1, sizeof(*inode));

	if (!inode)
		return NULL;
	inode->dev = attr->st_dev;
	inode->ino = attr->st_ino;
	inode->fd = fd;
	pthread_mutex_init(&inode->lock, NULL);
	if (++table.count > table.bucket_count)
		grow();
	return inode;
}

/* The node with these numbers, or a new one, with one more lookup. Sets *added if it is new: the descriptor is its. */
static struct inode *find_or_add(int fd, const struct stat *attr, bool *added)
{
	struct inode *inode;

	pthread_mutex_lock(&table.lock);
	inode = *slot_of(attr->st_dev, attr->st_ino);
	*added = !inode;
	if (!inode) {
		inode = new_inode(fd, attr);
		/* After new_inode(): it may have moved the slots. */
		if (inode)
			*slot_of(attr->st_dev, attr->st_ino) = inode;
	}
	if (inode)
		inode->lookups++;
	pthread_mutex_unlock(&table.lock);
	return inode;
}

/*
 * Whether the node is the descriptor's file. It is, if it has a descriptor itself: both files exist now, and
 * have the same numbers. Sets *fd, which is left over, to be closed; -1: none.
 */
static bool join(struct inode *inode, int *fd)
{
	bool fits = true, needed = false;
	int previous;

	pthread_mutex_lock(&inode->lock);
	previous = inode->fd;
	if (previous < 0)
		fits = needed = handle_fits(inode->handle, *fd);
	else if (inode->fd_by_handle && !inode->users)
		needed = true;
	if (needed) {
		inode->fd = *fd;
		inode->fd_by_handle = false;
		*fd = previous;
	}
	pthread_mutex_unlock(&inode->lock);
	if (needed && previous < 0)
		descriptors_add(inode);
	return fits;
}

/* What is left of a node whose file is gone: the kernel still knows it, and is told ESTALE. */
static void set_stale(struct inode *inode)
{
	pthread_mutex_lock(&table.lock);
	inode->stale = true;
	pthread_mutex_unlock(&table.lock);
	inode_forget(inode, 1);
}

/* Takes over the descriptor if there is a node. */
static struct inode *node_of(int fd, const struct stat *attr)
{
	struct inode *inode;
	bool added;

	while ((inode = find_or_add(fd, attr, &added))) {
		if (added) {
			descriptors_add(inode);
			return inode;
		}
		if (join(inode, &fd)) {
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
	int saved;

	if (!fstat(fd, attr))
		inode = node_of(fd, attr);
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
	inode->forgotten = true;
	used = inode->users;
	pthread_mutex_unlock(&inode->lock);
	if (!used)
		free_inode(inode);
}

static struct inode **slot_of_inode(const struct inode *inode)
{
	struct inode **slot = &table.buckets[bucket_of(inode->dev, inode->ino, table.bucket_count)];

	while (*slot != inode)
		slot = &(*slot)->next;
	return slot;
}

void inode_forget(struct inode *inode, uint64_t lookups)
{
	bool last;

	if (inode == &table.root)
		return;
	pthread_mutex_lock(&table.lock);
	inode->lookups -= lookups < inode->lookups ? lookups : inode->lookups;
	last = !inode->lookups;
	if (last) {
		*slot_of_inode(inode) = inode->next;
		table.count--;
	}
	pthread_mutex_unlock(&table.lock);
	if (last)
		end_inode(inode);
}

/* Said once: every further request would repeat it. */
static void explain_file_limit(void)
{
	static atomic_flag said = ATOMIC_FLAG_INIT;
	struct rlimit limit = { 0 };
	int saved = errno;

	if (atomic_flag_test_and_set(&said))
		return;
	getrlimit(RLIMIT_NOFILE, &limit);
	log_error("%llu descriptors are not enough for the files in use: requests fail with ENFILE "
		  "(raise fs.nr_open and fs.file-max, then mount again)", (unsigned long long)limit.rlim_cur);
	errno = saved;
}

static int check_file_limit(int fd)
{
	if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
		explain_file_limit();
		/* EMFILE would accuse the caller. */
		errno = ENFILE;
	}
	return fd;
}

/* Whether opening failed for want of a descriptor, and can be tried again. */
static bool made_room(void)
{
	int saved = errno;
	bool made = (saved == EMFILE || saved == ENFILE) && descriptors_spare();

	errno = saved;
	return made;
}

int inode_open_child(const struct inode *parent, const char *name)
{
	int fd;

	do {
		fd = openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	} while (fd < 0 && made_room());
	return check_file_limit(fd);
}

int reopen(int fd, int flags)
{
	char name[16];
	int new_fd;

	snprintf(name, sizeof(name), "%d", fd);
	do {
		/* The name is a link to the file itself; O_NOFOLLOW would refuse it. */
		new_fd = openat(table.own_fds, name, (flags & ~O_NOFOLLOW) | O_CLOEXEC);
	} while (new_fd < 0 && made_room());
	return check_file_limit(new_fd);
}

static int open_by_handle(struct inode *inode)
{
	int fd;

	do {
		fd = handle_open(inode->handle);
	} while (fd < 0 && made_room());
	return check_file_limit(fd);
}

bool inode_use(struct inode *inode)
{
	bool opened = false, usable;

	pthread_mutex_lock(&inode->lock);
	if (inode->fd < 0) {
		inode->fd = open_by_handle(inode);
		opened = inode->fd_by_handle = inode->fd >= 0;
	}
	usable = inode->fd >= 0;
	if (usable) {
		inode->users++;
		inode->used_lately = true;
	}
	pthread_mutex_unlock(&inode->lock);
	if (opened)
		descriptors_add(inode);
	return usable;
}

void inode_end_use(struct inode *inode)
{
	bool last;

	pthread_mutex_lock(&inode->lock);
	last = !--inode->users && inode->forgotten;
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
	inode = *slot_of(attr.st_dev, attr.st_ino);
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

const char *inode_path(const struct inode *inode, char path[INODE_PATH_MAX])
{
	snprintf(path, INODE_PATH_MAX, "/proc/self/fd/%d", inode->fd);
	return path;
}

/* A descriptor that was opened by a handle need not be connected to the tree. It then says what only the root is. */
static bool is_connected(const struct inode *inode, const char *name)
{
	return inode == &table.root || strcmp(name, "/");
}

const char *inode_name(const struct inode *inode, char name[INODE_NAME_MAX])
{
	char path[INODE_PATH_MAX];
	ssize_t length = readlink(inode_path(inode, path), name, INODE_NAME_MAX - 1);

	name[length < 0 ? 0 : length] = '\0';
	if (!is_connected(inode, name))
		name[0] = '\0';
	return name;
}
