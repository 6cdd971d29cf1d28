/* SPDX-License-Identifier: GPL-2.0-or-later */
/* revoke_on_unlink: finds the file before its name is removed, and revokes its tokens after. */
#include <errno.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/revoke-on-unlink.h"

static bool enabled;

void revoke_on_unlink_enable(void)
{
	enabled = true;
}

/* The name is not looked up while there are no tokens, which is nearly always the case. */
struct unlinked_file revoke_on_unlink_begin(const struct inode *directory, const char *name)
{
	struct unlinked_file unlinked = { .fd = -1, .unknown = enabled };

	if (!enabled || !broker_has_tokens())
		return unlinked;
	unlinked.fd = inode_open_child(directory, name);
	unlinked.unknown = unlinked.fd < 0 && errno != ENOENT;
	return unlinked;
}

/*
 * Revokes the tokens of the file if it has no link left. A file that has tokens is open, so its
 * node is in use. The node is looked up only now: the file may have been opened, and its tokens
 * granted, while the name was removed.
 */
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

void revoke_on_unlink_end(struct unlinked_file *unlinked)
{
	if (unlinked->unknown && broker_has_tokens())
		broker_revoke_removed();
	if (unlinked->fd < 0)
		return;
	revoke_removed(unlinked->fd);
	close(unlinked->fd);
}
