/* SPDX-License-Identifier: GPL-2.0-or-later */
/* FUSE passthrough: registers backing files, and keeps their ids for the next open. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "identity/identity.h"
#include "identity/nobody.h"
#include "identity/privileges.h"
#include "log/log.h"
#include "nodes/inode.h"
#include "nodes/passthrough.h"

/* In nodes: a closed file keeps its id, which saves two system calls when it is opened again. */
#define MAX_IDLE 1024u

/* Greater than any errno. */
#define ERRORS_MAX 256

static int fuse_device = -1;
static bool is_enabled;

/* Nodes that have an id and no open file, in the order in which they were closed. */
static struct {
	pthread_mutex_t lock;
	TAILQ_HEAD(, inode) order;
	unsigned int count;
} idle = { .lock = PTHREAD_MUTEX_INITIALIZER, .order = TAILQ_HEAD_INITIALIZER(idle.order) };

void passthrough_negotiate(struct fuse_conn_info *connection, int device_fd)
{
	fuse_device = device_fd;
	is_enabled = fuse_set_feature_flag(connection, FUSE_CAP_PASSTHROUGH);
	/* The source may be one stacked filesystem (overlayfs); the mount allows none on top. */
	connection->max_backing_stack_depth = 1;
	if (!is_enabled)
		log_warning("the kernel has no FUSE passthrough: data goes through the server, "
			    "no tokens (needs Linux 6.9 with CONFIG_FUSE_PASSTHROUGH)");
}

void passthrough_disconnect(void)
{
	fuse_device = -1;
}

static int backing_open(int fd)
{
	struct fuse_backing_map map = { .fd = fd };

	return ioctl(fuse_device, FUSE_DEV_IOC_BACKING_OPEN, &map);
}

/*
 * The kernel keeps the ids and capabilities that the thread has now, and opens and writes the file
 * with them for all users.
 */
static int backing_open_as_nobody(int fd)
{
	int id;

	if (!nobody_assume(CAPABILITY(CAP_SYS_ADMIN)))
		return -1;
	id = backing_open(fd);
	identity_end();
	return id;
}

/*
 * Returns a backing id for the node's file, or -1 with errno set. The kernel only learns from the
 * descriptor which file it is: for each open of a program the kernel opens a backing file with the
 * program's flags (O_DIRECT, O_APPEND, direction). So one id serves all opens, and the node's
 * O_PATH descriptor is the best choice: it prevents nobody from executing the file or taking a
 * lease on it.
 */
static int register_inode(const struct inode *inode)
{
	int id = backing_open_as_nobody(inode->fd);
	int fd;

	if (id > 0 || errno != EBADF)
		return id;
	/* Before Linux 6.16 the kernel takes only the descriptor of an open file, not O_PATH. */
	fd = reopen(inode->fd, O_RDONLY);
	if (fd < 0)
		return -1;
	id = backing_open_as_nobody(fd);
	close(fd);
	return id;
}

/*
 * Returns true if the error comes from the kind of source: it is the same for all its files, and
 * stays. Other errors are for want of something, and may pass and come again.
 */
static bool is_lasting(int error)
{
	return error == ELOOP || error == EOPNOTSUPP || error == EPERM;
}

static const char *advice_for(int error)
{
	switch (error) {
	case ELOOP:
		return " (the source is on a stack of filesystems)";
	case EPERM:
		return " (start the server in the initial user namespace: root of another may not)";
	default:
		return "";
	}
}

/*
 * Explains each error by itself: that a file system has no passthrough must not hide that memory is
 * short.
 */
static void explain(int error)
{
	static atomic_llong next[ERRORS_MAX];
	atomic_llong *due = &next[error < ERRORS_MAX ? error : 0];

	if (!log_is_due(due))
		return;
	if (is_lasting(error))
		*due = LLONG_MAX;
	log_warning("no passthrough for some or all files, "
		    "their data goes through the server, no tokens: %s%s",
		    strerror(error), advice_for(error));
}

static void close_id(int id)
{
	if (id && fuse_device >= 0 && ioctl(fuse_device, FUSE_DEV_IOC_BACKING_CLOSE, &id))
		log_warning("cannot close backing id %d: %s", id, strerror(errno));
}

static void append_idle(struct inode *inode)
{
	inode->backing.is_idle = true;
	TAILQ_INSERT_TAIL(&idle.order, inode, backing.idle);
	idle.count++;
}

static void unlink_idle(struct inode *inode)
{
	TAILQ_REMOVE(&idle.order, inode, backing.idle);
	inode->backing.is_idle = false;
	idle.count--;
}

/*
 * Takes the id of the node that was closed first. Returns it for the caller to close, or 0 if there
 * are not too many idle nodes or the node is being opened. Caller holds the list's lock.
 */
static int take_oldest(void)
{
	struct inode *inode = TAILQ_FIRST(&idle.order);
	int id;

	/* Waiting could deadlock: the owner of a node's lock may wait for the lock of the list. */
	if (idle.count <= MAX_IDLE || pthread_mutex_trylock(&inode->lock))
		return 0;
	unlink_idle(inode);
	id = inode->backing.id;
	inode->backing.id = 0;
	pthread_mutex_unlock(&inode->lock);
	return id;
}

static void set_idle(struct inode *inode)
{
	int id;

	pthread_mutex_lock(&idle.lock);
	append_idle(inode);
	id = take_oldest();
	pthread_mutex_unlock(&idle.lock);
	close_id(id);
}

static void end_idle(struct inode *inode)
{
	pthread_mutex_lock(&idle.lock);
	if (inode->backing.is_idle)
		unlink_idle(inode);
	pthread_mutex_unlock(&idle.lock);
}

/* Returns a new backing id, or 0 after the log has explained the reason. */
static int new_id(struct inode *inode)
{
	int id = register_inode(inode);

	if (id > 0)
		return id;
	explain(errno);
	return 0;
}

/*
 * Before a writer opens a file that has an id: gives up the id if the file has become append-only.
 * To decide whether a writer may map the file or clear O_APPEND, some kernels look at the file on
 * the mount, which is not append-only. Returns false with errno set if the file is open: the kernel
 * wants the id for all opens then. Caller holds the node's lock.
 */
static bool give_up_id_if_append_only(struct inode *inode)
{
	if (!inode_is_append_only(inode))
		return true;
	if (inode->backing.opens) {
		errno = EBUSY;
		return false;
	}
	end_idle(inode);
	close_id(inode->backing.id);
	inode->backing.id = 0;
	return true;
}

static void count_open(struct inode *inode)
{
	/* The first open decides: the kernel refuses opens with and without id on one inode. */
	if (inode->backing.opens++)
		return;
	end_idle(inode);
	if (!inode->backing.id && !inode_is_append_only(inode))
		inode->backing.id = new_id(inode);
}

bool passthrough_begin(struct inode *inode, bool writes, int *backing_id)
{
	bool begun;

	*backing_id = 0;
	if (!is_enabled)
		return true;
	pthread_mutex_lock(&inode->lock);
	begun = !writes || !inode->backing.id || give_up_id_if_append_only(inode);
	if (begun) {
		count_open(inode);
		*backing_id = inode->backing.id;
	}
	pthread_mutex_unlock(&inode->lock);
	return begun;
}

void passthrough_end(struct inode *inode)
{
	if (!is_enabled)
		return;
	pthread_mutex_lock(&inode->lock);
	if (!--inode->backing.opens && inode->backing.id)
		set_idle(inode);
	pthread_mutex_unlock(&inode->lock);
}

void passthrough_forget(struct inode *inode)
{
	end_idle(inode);
	close_id(inode->backing.id);
}
