/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "nodes/inode.h"
#include "operations/cache.h"
#include "operations/statx.h"
#include "transport/transport.h"

_Static_assert(sizeof(struct fuse_statx) == sizeof(struct statx), "they are the same");

/* What the kernel does not want, it passes over. */
static int read_attributes(int fd, struct fuse_statx *attributes)
{
	struct statx found;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &found))
		return errno;
	memcpy(attributes, &found, sizeof(found));
	return 0;
}

static uint64_t seconds_of(int fd, const struct fuse_statx *attributes)
{
	return (uint64_t)cache_attribute_seconds(&(struct stat){ .st_mode = attributes->mode }, cache_is_privileged(fd));
}

static int find(uint64_t nodeid, struct fuse_statx_out *out)
{
	struct inode *inode = inode_from_nodeid(nodeid);
	int error;

	if (!inode)
		return ESTALE;
	if (!inode_use(inode))
		return errno;
	error = read_attributes(inode->fd, &out->stat);
	if (!error)
		out->attr_valid = seconds_of(inode->fd, &out->stat);
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
	error = transport_body(header, size, sizeof(struct fuse_statx_in)) ? find(header->nodeid, &out) : EINVAL;
	transport_answer(device, header, error, &out, error ? 0 : sizeof(out));
	return true;
}
