/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What many operations have in common: using the node of a request, and replying. */
#include <errno.h>

#include "limits/open-quota.h"
#include "operations/cache.h"
#include "operations/reply.h"

void reply_result(fuse_req_t req, int result)
{
	fuse_reply_err(req, result < 0 ? errno : 0);
}

struct inode *use_node(fuse_req_t req, fuse_ino_t nodeid)
{
	struct inode *inode = inode_from_nodeid(nodeid);

	if (inode && inode_use(inode))
		return inode;
	fuse_reply_err(req, inode ? errno : ESTALE);
	return NULL;
}

struct inode *use_node_to_open(fuse_req_t req, fuse_ino_t nodeid)
{
	if (open_quota_is_left(fuse_req_ctx(req)->uid))
		return use_node(req, nodeid);
	fuse_reply_err(req, ENFILE);
	return NULL;
}

struct inode *make_entry(int fd, struct fuse_entry_param *entry)
{
	bool has_capabilities = has_file_capabilities(fd);
	struct inode *inode;

	*entry = (struct fuse_entry_param){ .entry_timeout = cache_seconds() };
	inode = inode_lookup(fd, &entry->attr);
	if (inode) {
		entry->attr_timeout = cache_attribute_seconds(&entry->attr, has_capabilities);
		entry->ino = inode->nodeid;
		entry->generation = inode->identity.generation;
	}
	return inode;
}

void reply_entry(fuse_req_t req, int fd)
{
	struct fuse_entry_param entry;
	struct inode *inode = fd < 0 ? NULL : make_entry(fd, &entry);

	if (!inode)
		fuse_reply_err(req, errno);
	else if (fuse_reply_entry(req, &entry) == -ENOENT)
		/* The request was interrupted: the kernel has not seen the node. */
		inode_forget(inode, 1);
}
