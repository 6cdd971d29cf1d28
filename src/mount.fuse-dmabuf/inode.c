/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "inode.h"
#include "log.h"

/* Doubled whenever there are as many nodes as buckets. */
#define FIRST_BUCKETS 1024u

static struct {
	pthread_mutex_t lock;
	struct inode root;
	struct inode **buckets;
	size_t bucket_count;    /* a power of two */
	size_t count;
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

	while (*slot && ((*slot)->ino != ino || (*slot)->dev != dev))
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
	close(inode->fd);
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
	table.bucket_count = FIRST_BUCKETS;
	table.root.fd = root_fd;
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

/* Sets *known if the table has the file already and so does not need the descriptor. */
static struct inode *find_or_add(int fd, const struct stat *attr, bool *known)
{
	struct inode *inode;

	pthread_mutex_lock(&table.lock);
	inode = *slot_of(attr->st_dev, attr->st_ino);
	*known = inode;
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

struct inode *inode_lookup(int fd, struct stat *attr)
{
	struct inode *inode;
	bool known;
	int saved;

	if (fstat(fd, attr)) {
		saved = errno;
		close(fd);
		errno = saved;
		return NULL;
	}
	inode = find_or_add(fd, attr, &known);
	if (known || !inode)
		close(fd);
	if (!inode)
		errno = ENOMEM;
	return inode;
}

struct inode *inode_find(int fd)
{
	struct inode *inode;
	struct stat attr;

	if (fstat(fd, &attr))
		return NULL;
	pthread_mutex_lock(&table.lock);
	inode = *slot_of(attr.st_dev, attr.st_ino);
	if (inode)
		inode->lookups++;
	pthread_mutex_unlock(&table.lock);
	return inode;
}

void inode_hold(struct inode *inode)
{
	pthread_mutex_lock(&table.lock);
	inode->lookups++;
	pthread_mutex_unlock(&table.lock);
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
		*slot_of(inode->dev, inode->ino) = inode->next;
		table.count--;
	}
	pthread_mutex_unlock(&table.lock);
	if (last)
		free_inode(inode);
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

int inode_open_child(const struct inode *parent, const char *name)
{
	return check_file_limit(openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
}

int reopen(int fd, int flags)
{
	char path[INODE_PATH_MAX];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	/* The path is a link to the file itself; O_NOFOLLOW would refuse it. */
	return check_file_limit(open(path, (flags & ~O_NOFOLLOW) | O_CLOEXEC));
}

const char *inode_path(const struct inode *inode, char path[INODE_PATH_MAX])
{
	snprintf(path, INODE_PATH_MAX, "/proc/self/fd/%d", inode->fd);
	return path;
}

const char *inode_name(const struct inode *inode, char name[INODE_NAME_MAX])
{
	char path[INODE_PATH_MAX];
	ssize_t length = readlink(inode_path(inode, path), name, INODE_NAME_MAX - 1);

	name[length < 0 ? 0 : length] = '\0';
	return name;
}
