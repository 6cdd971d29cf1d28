/* SPDX-License-Identifier: GPL-2.0-or-later */
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

/* Files that were closed keep their ids, which saves two system calls when they are opened again. */
#define MAX_IDLE 1024u

/* More than there are of errno. */
#define ERRORS_MAX 256

static int device = -1;
static bool enabled;

/* Nodes that have an id and no open file; those that were closed first are the oldest. */
static struct {
	pthread_mutex_t lock;
	TAILQ_HEAD(, inode) order;
	unsigned int count;
} idle = { .lock = PTHREAD_MUTEX_INITIALIZER, .order = TAILQ_HEAD_INITIALIZER(idle.order) };

void passthrough_negotiate(struct fuse_conn_info *connection, int device_fd)
{
	device = device_fd;
	enabled = fuse_set_feature_flag(connection, FUSE_CAP_PASSTHROUGH);
	/* The source may be one stacked filesystem (overlayfs), and nothing may be stacked on this one. */
	connection->max_backing_stack_depth = 1;
	if (!enabled)
		log_warning("the kernel has no FUSE passthrough: data goes through the server, no tokens "
			    "(needs Linux 6.9 with CONFIG_FUSE_PASSTHROUGH)");
}

void passthrough_disconnect(void)
{
	device = -1;
}

static int backing_open(int fd)
{
	struct fuse_backing_map map = { .fd = fd };

	return ioctl(device, FUSE_DEV_IOC_BACKING_OPEN, &map);
}

/* The kernel keeps the ids and capabilities of this moment, to open and write the file with them for all users. */
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
 * The kernel takes from this descriptor only which file it is: for each open of a program it opens a backing
 * file with that program's flags (O_DIRECT, O_APPEND, direction). So one id serves all opens, and the node's
 * O_PATH descriptor is the best to give: it keeps nobody from executing the file or leasing it.
 */
static int register_inode(const struct inode *inode)
{
	int id = backing_open_as_nobody(inode->fd);
	int fd;

	if (id > 0 || errno != EBADF)
		return id;
	/* Before Linux 6.16 it had to be a file that is open. */
	fd = reopen(inode->fd, O_RDONLY);
	if (fd < 0)
		return -1;
	id = backing_open_as_nobody(fd);
	close(fd);
	return id;
}

/* What comes of the source's kind is so for all its files, and stays. What there was not enough of may be missed again. */
static bool is_lasting(int error)
{
	return error == ELOOP || error == EOPNOTSUPP || error == EPERM;
}

static const char *more_of(int error)
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

/* Each cause by itself: that a file system cannot do it must not hide that memory is short. */
static void explain(int error)
{
	static atomic_llong next[ERRORS_MAX];
	atomic_llong *due = &next[error < ERRORS_MAX ? error : 0];

	if (!log_is_due(due))
		return;
	if (is_lasting(error))
		*due = LLONG_MAX;
	log_warning("no passthrough for some or all files, their data goes through the server, no tokens: %s%s",
		    strerror(error), more_of(error));
}

static void close_id(int id)
{
	if (id && device >= 0 && ioctl(device, FUSE_DEV_IOC_BACKING_CLOSE, &id))
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

/* The id of the node that was closed first. 0: there are not too many; or that node is being opened. */
static int take_oldest(void)
{
	struct inode *inode = TAILQ_FIRST(&idle.order);
	int id;

	/* Whoever holds this lock may wait for that of the list. */
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

static int id_of(struct inode *inode)
{
	int id = register_inode(inode);

	if (id > 0)
		return id;
	explain(errno);
	return 0;
}

/*
 * The id of a file that has become append-only since, for a writer. Some kernels look at the file on the mount, which
 * is not, where they let a writer map it or take O_APPEND away. False: it is in use, and the kernel wants it for all.
 */
static bool give_up_id(struct inode *inode)
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
	/* Decided by the first open: the kernel refuses a mixture on one inode. */
	if (inode->backing.opens++)
		return;
	end_idle(inode);
	if (!inode->backing.id && !inode_is_append_only(inode))
		inode->backing.id = id_of(inode);
}

bool passthrough_begin(struct inode *inode, bool writes, int *backing_id)
{
	bool begun;

	*backing_id = 0;
	if (!enabled)
		return true;
	pthread_mutex_lock(&inode->lock);
	begun = !writes || !inode->backing.id || give_up_id(inode);
	if (begun) {
		count_open(inode);
		*backing_id = inode->backing.id;
	}
	pthread_mutex_unlock(&inode->lock);
	return begun;
}

void passthrough_end(struct inode *inode)
{
	if (!enabled)
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
