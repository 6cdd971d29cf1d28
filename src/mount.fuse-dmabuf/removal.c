/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <unistd.h>

#include "broker.h"
#include "removal.h"

static bool enabled;

void removal_enable(void)
{
	enabled = true;
}

/* A file that has tokens is open, so its node is in use. */
static struct inode *find_target(const struct inode *directory, const char *name)
{
	struct inode *inode;
	int fd = inode_open_child(directory, name);

	if (fd < 0)
		return NULL;
	inode = inode_find_used(fd);
	close(fd);
	return inode;
}

struct removal removal_begin(const struct inode *directory, const char *name)
{
	struct removal removal = { .no_tokens = enabled && !broker_has_tokens() };

	if (enabled && !removal.no_tokens)
		removal.target = find_target(directory, name);
	return removal;
}

void removal_end(struct removal *removal)
{
	struct stat attr;

	/* One that was granted meanwhile can be of the file. */
	if (removal->no_tokens && broker_has_tokens())
		broker_revoke_removed();
	if (!removal->target)
		return;
	if (!fstat(removal->target->fd, &attr) && !attr.st_nlink)
		broker_revoke_file(removal->target);
	inode_let_go(removal->target);
}
