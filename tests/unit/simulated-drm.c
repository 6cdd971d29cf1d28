/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For LD_PRELOAD: simulates nodes in /dev/dri, with libdrm and libdrm_amdgpu as their documentation
 * describes them. SIMULATED_DRM lists the nodes: "card0=ast,renderD128=amdgpu@0000:03:00.0". Nobody
 * may open a node whose driver is "locked". The GPU of renderD130 has video memory, another one of
 * xe has none. A call that the documentation does not allow ends the program, and so does an object
 * that is not freed.
 */
#include <amdgpu.h>
#include <amdgpu_drm.h>
#include <dlfcn.h>
#include <drm/xe_drm.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xf86drm.h>

#define MIB (1ull << 20)
#define VRAM (64 * MIB)
#define XE_PAGE 65536u
#define XE_VRAM_INSTANCE 2
#define FDS 64

static struct node {
	char driver[16];
	bool is_card, is_master, has_vram;
	uint64_t size;		/* of the memory that was allocated last */
	uint32_t handle;
} nodes[FDS];			/* by descriptor */

static unsigned devices, objects;	/* of amdgpu, not freed */

static void expect(bool is_right, const char *what)
{
	if (is_right)
		return;
	fprintf(stderr, "simulated DRM: wrong: %s\n", what);
	abort();
}

__attribute__((destructor)) static void all_freed(void)
{
	expect(!devices && !objects, "a device or object of amdgpu was not freed");
}

/* Finds "name=driver[@address]" in SIMULATED_DRM. Returns false without such a node. */
static bool find(const char *name, char driver[16], char address[24])
{
	const char *entry = getenv("SIMULATED_DRM");
	char found[32];

	for (; entry && *entry; entry = strchr(entry, ',') ? strchr(entry, ',') + 1 : "") {
		*address = '\0';
		if (sscanf(entry, "%31[^=]=%15[^@,]@%23[^,]", found, driver, address) >= 2 &&
		    !strcmp(found, name))
			return true;
	}
	return false;
}

static int open_node(const char *name)
{
	char driver[16], address[24];
	int fd;

	if (!find(name, driver, address)) {
		errno = ENOENT;
		return -1;
	}
	if (!strcmp(driver, "locked")) {
		errno = EACCES;
		return -1;
	}
	fd = memfd_create("node", MFD_CLOEXEC);
	expect(fd >= 0 && fd < FDS, "too many descriptors");
	nodes[fd] = (struct node){ .is_card = !strncmp(name, "card", 4) };
	nodes[fd].is_master = nodes[fd].is_card;
	nodes[fd].has_vram = !strcmp(name, "renderD130");
	strcpy(nodes[fd].driver, driver);
	return fd;
}

/* The headers give this function the name open64(). */
int open(const char *path, int flags, ...)
{
	int (*next)(const char *path, int flags, ...);
	va_list arguments;
	mode_t mode;

	va_start(arguments, flags);
	mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
	va_end(arguments);
	*(void **)&next = dlsym(RTLD_NEXT, "open64");
	return strncmp(path, "/dev/dri/", 9) ? next(path, flags, mode) : open_node(path + 9);
}

ssize_t readlink(const char *path, char *target, size_t size)
{
	ssize_t (*next)(const char *path, char *target, size_t size);
	char name[32], driver[16], address[24];

	*(void **)&next = dlsym(RTLD_NEXT, "readlink");
	if (sscanf(path, "/sys/class/drm/%31[^/]/device", name) != 1)
		return next(path, target, size);
	if (!find(name, driver, address) || !*address) {
		errno = ENOENT;
		return -1;
	}
	return snprintf(target, size, "../../../%s", address);
}

/* The dma-bufs are ordinary memory, which needs no maintenance of caches. */
int ioctl(int fd, unsigned long request, ...)
{
	int (*next)(int fd, unsigned long request, ...);
	va_list arguments;
	void *argument;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	*(void **)&next = dlsym(RTLD_NEXT, "ioctl");
	return request == DMA_BUF_IOCTL_SYNC ? 0 : next(fd, request, argument);
}

drmVersionPtr drmGetVersion(int fd)
{
	drmVersionPtr version = calloc(1, sizeof(*version));

	version->name = nodes[fd].driver;
	version->name_len = (int)strlen(version->name);
	return version;
}

void drmFreeVersion(drmVersionPtr version)
{
	free(version);
}

int drmDropMaster(int fd)
{
	expect(nodes[fd].is_card, "a render node has no master");
	nodes[fd].is_master = false;
	return 0;
}

int drmGetCap(int fd, uint64_t capability, uint64_t *value)
{
	expect(capability == DRM_CAP_DUMB_BUFFER, "the capability");
	*value = strcmp(nodes[fd].driver, "v3d") != 0;
	return 0;
}

static int create_dumb(struct node *node, struct drm_mode_create_dumb *create)
{
	expect(!node->is_master, "the program is still the master of the card");
	expect(create->width && create->height && create->bpp && !create->flags, "a dumb buffer");
	/* The driver aligns lines to 8 KiB. */
	create->pitch = (create->width * create->bpp / 8 + 8191) / 8192 * 8192;
	node->size = create->size = (uint64_t)create->pitch * create->height;
	node->handle = create->handle = 7;
	return 0;
}

static int query_xe(const struct node *node, struct drm_xe_device_query *query)
{
	static const struct drm_xe_mem_region regions[] = { {
		.mem_class = DRM_XE_MEM_REGION_CLASS_SYSMEM,
		.min_page_size = 4096,
		.total_size = 16 * VRAM,
	}, {
		.mem_class = DRM_XE_MEM_REGION_CLASS_VRAM,	/* which the CPU cannot reach */
		.instance = 1,
		.min_page_size = XE_PAGE,
		.total_size = VRAM,
	}, {
		.mem_class = DRM_XE_MEM_REGION_CLASS_VRAM,
		.instance = XE_VRAM_INSTANCE,
		.min_page_size = XE_PAGE,
		.total_size = 2 * VRAM,
		.cpu_visible_size = VRAM,
		.cpu_visible_used = MIB,
	} };
	struct drm_xe_query_mem_regions *answer = (void *)(uintptr_t)query->data;
	uint32_t count = node->has_vram ? 3 : 1;
	uint32_t size = (uint32_t)(sizeof(*answer) + count * sizeof(*regions));

	expect(query->query == DRM_XE_DEVICE_QUERY_MEM_REGIONS && !query->extensions, "a query");
	if (!query->size) {
		query->size = size;
		return 0;
	}
	expect(query->size == size && answer, "the size of the answer");
	answer->num_mem_regions = count;
	memcpy(answer->mem_regions, regions, count * sizeof(*regions));
	return 0;
}

static int create_xe(struct node *node, struct drm_xe_gem_create *create)
{
	expect(create->placement == 1u << XE_VRAM_INSTANCE, "the placement");
	expect(create->flags == DRM_XE_GEM_CREATE_FLAG_NEEDS_VISIBLE_VRAM, "the flags");
	expect(!create->vm_id, "memory of an address space of the GPU cannot be exported");
	expect(create->cpu_caching == DRM_XE_GEM_CPU_CACHING_WC, "the caching");
	expect(create->size && create->size % XE_PAGE == 0 && create->size <= VRAM, "the size");
	node->size = create->size;
	node->handle = create->handle = 8;
	return 0;
}

int drmIoctl(int fd, unsigned long request, void *argument)
{
	struct node *node = &nodes[fd];
	bool is_xe = !strcmp(node->driver, "xe");

	if (request == DRM_IOCTL_MODE_CREATE_DUMB && node->is_card)
		return create_dumb(node, argument);
	if (request == DRM_IOCTL_XE_DEVICE_QUERY && is_xe)
		return query_xe(node, argument);
	if (request == DRM_IOCTL_XE_GEM_CREATE && is_xe)
		return create_xe(node, argument);
	errno = EACCES;
	return -1;
}

static int new_dmabuf(uint64_t size)
{
	int fd = memfd_create("dma-buf", MFD_CLOEXEC);

	expect(fd >= 0 && !ftruncate(fd, size), "the dma-buf");
	return fd;
}

int drmPrimeHandleToFD(int fd, uint32_t handle, uint32_t flags, int *dmabuf)
{
	expect(handle == nodes[fd].handle && flags == (DRM_CLOEXEC | DRM_RDWR), "the export");
	*dmabuf = new_dmabuf(nodes[fd].size);
	return 0;
}

int amdgpu_device_initialize(int fd, uint32_t *major, uint32_t *minor,
			     amdgpu_device_handle *device)
{
	expect(!nodes[fd].is_card && !strcmp(nodes[fd].driver, "amdgpu"), "a node of amdgpu");
	*major = 3;
	*minor = 60;
	*device = (amdgpu_device_handle)&nodes[fd];
	devices++;
	return 0;
}

int amdgpu_device_deinitialize(amdgpu_device_handle device)
{
	expect(device && !objects, "a device ends before its objects");
	devices--;
	return 0;
}

int amdgpu_query_heap_info(amdgpu_device_handle device, uint32_t heap, uint32_t flags,
			   struct amdgpu_heap_info *info)
{
	expect(device && heap == AMDGPU_GEM_DOMAIN_VRAM, "the heap");
	expect(flags == AMDGPU_GEM_CREATE_CPU_ACCESS_REQUIRED, "the flags of the heap");
	*info = (struct amdgpu_heap_info){ .heap_size = VRAM, .heap_usage = 3 * MIB };
	return 0;
}

int amdgpu_bo_alloc(amdgpu_device_handle device, struct amdgpu_bo_alloc_request *request,
		    amdgpu_bo_handle *object)
{
	struct node *node = (struct node *)device;

	expect(request->preferred_heap == AMDGPU_GEM_DOMAIN_VRAM, "the heap");
	expect(request->flags & AMDGPU_GEM_CREATE_CPU_ACCESS_REQUIRED, "memory without a BAR");
	if (request->alloc_size > VRAM - 3 * MIB)
		return -ENOMEM;
	node->size = request->alloc_size;
	*object = (amdgpu_bo_handle)node;
	objects++;
	return 0;
}

int amdgpu_bo_export(amdgpu_bo_handle object, enum amdgpu_bo_handle_type type,
		     uint32_t *handle)
{
	expect(type == amdgpu_bo_handle_type_dma_buf_fd, "the export");
	*handle = (uint32_t)new_dmabuf(((struct node *)object)->size);
	return 0;
}

int amdgpu_bo_free(amdgpu_bo_handle object)
{
	expect(object && objects, "an object is freed twice");
	objects--;
	return 0;
}
