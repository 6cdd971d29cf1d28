/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <unistd.h>

#include "broker/broker.h"
#include "operations/revoke-on-unlink.h"

static bool enabled;

void removal_enable(void)
{
	enabled = true;
}

/* The name is not looked at while nobody has tokens, which is nearly always. */
struct removal removal_begin(const struct inode *directory, const char *name)
{
	struct removal removal = { .fd = -1, .unknown = enabled };

	if (!enabled || !broker_has_tokens())
		return removal;
	removal.fd = inode_open_child(directory, name);
	removal.unknown = removal.fd < 0 && errno != ENOENT;
	return removal;
}

/* A file that has tokens is open, so its node is in use. It may have got both while it was removed. */
static void revoke_removed(int fd)
{
	struct inode *inode;
	struct stat attr;

	if (fstat(fd, &attr) || attr.st_nlink)
		return;
	inode = inode_find_used(fd);
	if (!inode)
		return;
	broker_revoke_file(inode);
	inode_let_go(inode);
}

void removal_end(struct removal *removal)
{
	if (removal->unknown && broker_has_tokens())
		broker_revoke_removed();
	if (removal->fd < 0)
		return;
	revoke_removed(removal->fd);
	close(removal->fd);
}
