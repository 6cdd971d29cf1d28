/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Takes the place of drm-amdgpu.c where libdrm_amdgpu is missing. */
#include <errno.h>

#include "base/error.h"
#include "buffer/drm.h"

static int amdgpu_find(const struct drm_node *node, uint64_t *bytes)
{
	*bytes = 0;
	return fail(EOPNOTSUPP, "drm: %s (amdgpu): this library was built without libdrm_amdgpu: "
		    "install its headers, and build again with -Damdgpu=enabled", node->name);
}

const struct drm_memory drm_amdgpu_memory = {
	.is_render = true,
	.find = amdgpu_find,
};
