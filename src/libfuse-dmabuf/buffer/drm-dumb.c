/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory of DRM drivers that have dumb buffers, which are made for pictures drawn by the CPU. */
#include <errno.h>
#include <string.h>
#include <xf86drm.h>

#include "base/arithmetic.h"
#include "base/error.h"
#include "buffer/drm.h"

#define LINE_SIZE 4096u			/* bytes; all drivers can align lines like this */
#define PIXEL_BITS 32u
#define SIZE_MAX_OF_DUMB (UINT32_MAX - LINE_SIZE + 1)	/* the kernel counts in 32 bits */

static int dumb_find(const struct drm_node *node, uint64_t *bytes)
{
	uint64_t has_dumb_buffers = 0;

	*bytes = 0;
	/* The kernel tells the capabilities of drivers of displays only, and vgem has none. */
	if (!strcmp(node->driver, "vgem"))
		return 0;
	if (!drmGetCap(node->fd, DRM_CAP_DUMB_BUFFER, &has_dumb_buffers) && has_dumb_buffers)
		return 0;
	return fail(EOPNOTSUPP, "drm: the driver of %s, %s, has no dumb buffers, and this library "
		    "does not know its own memory: choose another device", node->name,
		    node->driver);
}

static int dumb_allocate(const struct drm_node *node, uint64_t size)
{
	struct drm_mode_create_dumb create = {
		.width = LINE_SIZE * 8 / PIXEL_BITS,
		.height = (uint32_t)(align_up(size, LINE_SIZE) / LINE_SIZE),
		.bpp = PIXEL_BITS,
	};

	if (size > SIZE_MAX_OF_DUMB)
		return fail(ENOSPC, "drm: %s (%s) gives dumb buffers of less than 4 GiB only: use "
			    "several buffers", node->name, node->driver);
	if (drmIoctl(node->fd, DRM_IOCTL_MODE_CREATE_DUMB, &create))
		return fail(errno, "drm: %s (%s): a dumb buffer of %llu MiB: %s", node->name,
			    node->driver, (unsigned long long)align_up(size, 1 << 20) >> 20,
			    strerror(errno));
	if (create.size < size)
		return fail(EIO, "drm: %s (%s) made a dumb buffer of %llu bytes instead of %llu",
			    node->name, node->driver, (unsigned long long)create.size,
			    (unsigned long long)size);
	return drm_export(node, create.handle);
}

const struct drm_memory drm_dumb_memory = {
	.find = dumb_find,
	.allocate = dumb_allocate,
};
