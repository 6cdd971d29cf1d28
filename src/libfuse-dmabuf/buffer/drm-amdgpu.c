/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Video memory of AMD GPUs with the driver amdgpu, by libdrm_amdgpu. */
#include <amdgpu.h>
#include <amdgpu_drm.h>
#include <errno.h>
#include <string.h>

#include "base/arithmetic.h"
#include "base/error.h"
#include "buffer/drm.h"

/* libdrm_amdgpu returns negative errnos. */
static int open_device(const struct drm_node *node, amdgpu_device_handle *device)
{
	uint32_t major, minor;
	int ret = amdgpu_device_initialize(node->fd, &major, &minor, device);

	if (ret)
		return fail(-ret, "drm: the GPU of %s (amdgpu) cannot be used: %s", node->name,
			    strerror(-ret));
	return 0;
}

/* Other devices reach what the CPU reaches: the memory behind the BAR. */
static int query_heap(const struct drm_node *node, amdgpu_device_handle device,
		      struct amdgpu_heap_info *heap)
{
	int ret = amdgpu_query_heap_info(device, AMDGPU_GEM_DOMAIN_VRAM,
					 AMDGPU_GEM_CREATE_CPU_ACCESS_REQUIRED, heap);

	if (ret)
		return fail(-ret, "drm: %s (amdgpu) does not describe its memory: %s", node->name,
			    strerror(-ret));
	return 0;
}

static int amdgpu_find(const struct drm_node *node, uint64_t *bytes)
{
	struct amdgpu_heap_info heap = { 0 };
	amdgpu_device_handle device;
	int ret = open_device(node, &device);

	if (ret)
		return ret;
	ret = query_heap(node, device, &heap);
	if (!ret)
		*bytes = heap.heap_size - min_u64(heap.heap_size, heap.heap_usage);
	amdgpu_device_deinitialize(device);
	return ret;
}

static int export_memory(const struct drm_node *node, amdgpu_bo_handle memory)
{
	uint32_t fd;
	int ret = amdgpu_bo_export(memory, amdgpu_bo_handle_type_dma_buf_fd, &fd);

	if (ret)
		return fail(-ret, "drm: %s (amdgpu) exports no dma-buf: %s", node->name,
			    strerror(-ret));
	return (int)fd;
}

static int allocate_memory(const struct drm_node *node, amdgpu_device_handle device, uint64_t size)
{
	struct amdgpu_bo_alloc_request request = {
		.alloc_size = size,
		.preferred_heap = AMDGPU_GEM_DOMAIN_VRAM,
		.flags = AMDGPU_GEM_CREATE_CPU_ACCESS_REQUIRED | AMDGPU_GEM_CREATE_VRAM_CLEARED,
	};
	struct amdgpu_heap_info heap = { 0 };
	amdgpu_bo_handle memory;
	int ret = query_heap(node, device, &heap);

	if (ret)
		return ret;
	if (size > heap.heap_size)
		return fail(ENOSPC, "drm: the GPU of %s (amdgpu) has %llu MiB that other devices "
			    "can reach, %llu MiB are needed: switch on \"Resizable BAR\" in the "
			    "firmware if it has more", node->name,
			    (unsigned long long)heap.heap_size >> 20,
			    (unsigned long long)align_up(size, 1 << 20) >> 20);
	ret = amdgpu_bo_alloc(device, &request, &memory);
	if (ret)
		return fail(-ret, "drm: %s (amdgpu): %llu MiB of video memory: %s", node->name,
			    (unsigned long long)align_up(size, 1 << 20) >> 20, strerror(-ret));
	ret = export_memory(node, memory);
	amdgpu_bo_free(memory);
	return ret;
}

static int amdgpu_allocate(const struct drm_node *node, uint64_t size)
{
	amdgpu_device_handle device;
	int ret = open_device(node, &device);

	if (ret)
		return ret;
	ret = allocate_memory(node, device, size);
	amdgpu_device_deinitialize(device);
	return ret;
}

const struct drm_memory drm_amdgpu_memory = {
	.is_render = true,
	.is_device_memory = true,
	.find = amdgpu_find,
	.allocate = amdgpu_allocate,
};
