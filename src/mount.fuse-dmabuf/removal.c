/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <unistd.h>

#include "broker.h"
#include "removal.h"

static bool enabled;

void removal_enable(void)
{
	enabled = true;
}

struct inode *removal_begin(const struct inode *directory, const char *name)
{
	struct inode *inode;
	int fd;

	if (!enabled)
		return NULL;
	fd = inode_open_child(directory, name);
	if (fd < 0)
		return NULL;
	inode = inode_find(fd);
	close(fd);
	return inode;
}

void removal_end(struct inode *inode)
{
	struct stat attr;

	if (!inode)
		return;
	if (!fstat(inode->fd, &attr) && !attr.st_nlink)
		broker_revoke_file(inode);
	inode_forget(inode, 1);
}
