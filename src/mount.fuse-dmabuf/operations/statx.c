/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers STATX with the attributes of the file in the source. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "nodes/inode.h"
#include "operations/cache.h"
#include "operations/statx.h"
#include "transport/transport.h"

_Static_assert(sizeof(struct fuse_statx) == sizeof(struct statx), "both have the same layout");

/* Reads all attributes: the kernel ignores those that it does not want. Returns an errno, or 0. */
static int read_attributes(int fd, struct fuse_statx *attributes)
{
	struct statx found;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &found))
		return errno;
	memcpy(attributes, &found, sizeof(found));
	return 0;
}

static uint64_t valid_seconds(int fd, const struct fuse_statx *attributes)
{
	const struct stat attr = { .st_mode = attributes->mode };

	return (uint64_t)cache_attribute_seconds(&attr, has_file_capabilities(fd));
}

/* Returns an errno, or 0. */
static int read_node(uint64_t nodeid, struct fuse_statx_out *out)
{
	struct inode *inode = inode_from_nodeid(nodeid);
	int error;

	if (!inode)
		return ESTALE;
	if (!inode_use(inode))
		return errno;
	error = read_attributes(inode->fd, &out->stat);
	if (!error)
		out->attr_valid = valid_seconds(inode->fd, &out->stat);
	inode_end_use(inode);
	return error;
}

bool statx_answer(int device, const void *request, size_t size)
{
	const struct fuse_in_header *header = request;
	struct fuse_statx_out out = { 0 };
	int error;

	if (size < sizeof(*header) || header->opcode != FUSE_STATX)
		return false;
	error = transport_body(header, size, sizeof(struct fuse_statx_in)) ?
		read_node(header->nodeid, &out) : EINVAL;
	transport_answer(device, header, error, &out, error ? 0 : sizeof(out));
	return true;
}
