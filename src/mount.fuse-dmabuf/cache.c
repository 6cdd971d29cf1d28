/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cache.h"

static enum cache_mode mode;

void cache_begin(enum cache_mode wanted)
{
	mode = wanted;
}

double cache_seconds(void)
{
	static const double seconds[] = { [CACHE_AUTO] = 1, [CACHE_NONE] = 0, [CACHE_ALWAYS] = 86400 };

	return seconds[mode];
}

void cache_open_file(struct fuse_file_info *info)
{
	info->keep_cache = mode == CACHE_ALWAYS && !info->backing_id;
}

void cache_open_directory(struct fuse_file_info *info)
{
	info->keep_cache = info->cache_readdir = mode == CACHE_ALWAYS;
}
