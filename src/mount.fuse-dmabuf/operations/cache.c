/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The answers of cache.h, by the option cache and the mount option suid. */
#include <sys/xattr.h>

#include "nodes/inode.h"
#include "operations/cache.h"

static enum cache_mode mode;
static bool honours_set_id;

void cache_begin(enum cache_mode wanted, bool set_id)
{
	mode = wanted;
	honours_set_id = set_id;
}

double cache_seconds(void)
{
	static const double seconds[] = {
		[CACHE_AUTO] = 1, [CACHE_NONE] = 0, [CACHE_ALWAYS] = 86400,
	};

	return seconds[mode];
}

bool has_file_capabilities(int fd)
{
	char path[INODE_PATH_MAX];

	if (!honours_set_id)
		return false;
	return getxattr(fd_path(fd, path), "security.capability", NULL, 0) > 0;
}

double cache_attribute_seconds(const struct stat *attr, bool has_capabilities)
{
	if (has_capabilities || (S_ISREG(attr->st_mode) && attr->st_mode & (S_ISUID | S_ISGID)))
		return 0;
	return cache_seconds();
}

void cache_open_file(struct fuse_file_info *info)
{
	info->keep_cache = mode == CACHE_ALWAYS && !info->backing_id;
}

void cache_open_directory(struct fuse_file_info *info)
{
	info->keep_cache = info->cache_readdir = mode == CACHE_ALWAYS;
}
