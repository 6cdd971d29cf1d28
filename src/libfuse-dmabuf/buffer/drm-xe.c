/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Video memory of Intel GPUs with the driver xe. */
#include <drm/xe_drm.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xf86drm.h>

#include "base/arithmetic.h"
#include "base/error.h"
#include "buffer/drm.h"

static uint64_t visible_bytes(const struct drm_xe_mem_region *region)
{
	return region->cpu_visible_size - min_u64(region->cpu_visible_size,
						  region->cpu_visible_used);
}

static int query_error(const struct drm_node *node)
{
	return fail(errno, "drm: %s (xe) does not describe its memory: %s", node->name,
		    strerror(errno));
}

/* Returns the regions of memory, which the caller frees, or NULL with *ret set. */
static struct drm_xe_query_mem_regions *query_regions(const struct drm_node *node, int *ret)
{
	struct drm_xe_device_query query = { .query = DRM_XE_DEVICE_QUERY_MEM_REGIONS };
	struct drm_xe_query_mem_regions *regions;

	/* The kernel says the size first. */
	if (drmIoctl(node->fd, DRM_IOCTL_XE_DEVICE_QUERY, &query)) {
		*ret = query_error(node);
		return NULL;
	}
	regions = calloc(1, query.size);
	if (!regions) {
		*ret = fail(ENOMEM, "drm: out of memory");
		return NULL;
	}
	query.data = (uintptr_t)regions;
	if (!drmIoctl(node->fd, DRM_IOCTL_XE_DEVICE_QUERY, &query))
		return regions;
	*ret = query_error(node);
	free(regions);
	return NULL;
}

/*
 * Finds the video memory that has most bytes left which the CPU, and so other devices, can reach.
 * Returns a negative errno if there is none.
 */
static int find_region(const struct drm_node *node, struct drm_xe_mem_region *best)
{
	int ret = 0;
	struct drm_xe_query_mem_regions *regions = query_regions(node, &ret);

	if (!regions)
		return ret;
	*best = (struct drm_xe_mem_region){ 0 };
	for (uint32_t i = 0; i < regions->num_mem_regions; i++) {
		const struct drm_xe_mem_region *region = &regions->mem_regions[i];

		if (region->mem_class == DRM_XE_MEM_REGION_CLASS_VRAM &&
		    (!best->cpu_visible_size || visible_bytes(region) > visible_bytes(best)))
			*best = *region;
	}
	free(regions);
	if (!best->cpu_visible_size)
		return fail(ENODEV, "drm: the GPU of %s (xe) has no video memory that other "
			    "devices can reach: use udmabuf", node->name);
	return 0;
}

static int xe_find(const struct drm_node *node, uint64_t *bytes)
{
	struct drm_xe_mem_region region;
	int ret = find_region(node, &region);

	/* The kernel tells only the privileged what is used. */
	if (!ret)
		*bytes = region.cpu_visible_used ? visible_bytes(&region) : 0;
	return ret;
}

static int xe_allocate(const struct drm_node *node, uint64_t size)
{
	struct drm_xe_gem_create create = {
		.flags = DRM_XE_GEM_CREATE_FLAG_NEEDS_VISIBLE_VRAM,
		.cpu_caching = DRM_XE_GEM_CPU_CACHING_WC,
	};
	struct drm_xe_mem_region region;
	int ret = find_region(node, &region);

	if (ret)
		return ret;
	create.placement = 1u << region.instance;
	create.size = align_up(size, region.min_page_size);
	if (create.size > region.cpu_visible_size)
		return fail(ENOSPC, "drm: the GPU of %s (xe) has %llu MiB that other devices can "
			    "reach, %llu MiB are needed", node->name,
			    (unsigned long long)region.cpu_visible_size >> 20,
			    (unsigned long long)create.size >> 20);
	if (drmIoctl(node->fd, DRM_IOCTL_XE_GEM_CREATE, &create))
		return fail(errno, "drm: %s (xe): %llu MiB of video memory: %s", node->name,
			    (unsigned long long)create.size >> 20, strerror(errno));
	return drm_export(node, create.handle);
}

const struct drm_memory drm_xe_memory = {
	.is_render = true,
	.is_device_memory = true,
	.find = xe_find,
	.allocate = xe_allocate,
};
