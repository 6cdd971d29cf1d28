/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Exporter "drm": memory of GPUs whose drivers are in the kernel, by the nodes in /dev/dri. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "buffer/drm.h"

#define DEVICE_SIZE sizeof(((struct fdmabuf_buffer *)NULL)->device)

static int drm_parse(const char *argument, struct fdmabuf_memory *memory)
{
	memory->device = argument;
	return 0;
}

static const struct drm_memory *memory_of(const struct drm_node *node)
{
	if (!strcmp(node->driver, "amdgpu"))
		return &drm_amdgpu_memory;
	if (!strcmp(node->driver, "xe"))
		return &drm_xe_memory;
	return &drm_dumb_memory;
}

/* The kernel refuses dumb buffers on render nodes, and the memory of a GPU on most card nodes. */
static int check_node(const struct drm_node *node)
{
	if (memory_of(node)->is_render == node->is_render)
		return 0;
	if (node->is_render)
		return fail(EINVAL, "drm: %s is a render node, and %s gives memory by its card "
			    "node only: use drm:cardNUMBER", node->name, node->driver);
	return fail(EINVAL, "drm: %s is a card node, and %s gives memory by its render node: use "
		    "drm:renderDNUMBER", node->name, node->driver);
}

static void set_device(const struct drm_node *node, char device[DEVICE_SIZE])
{
	const char *place = *node->pci ? node->pci : node->name;

	snprintf(device, DEVICE_SIZE, "drm %s %s", node->driver, place);
}

static int allocate_on(const struct drm_node *node, struct fdmabuf_buffer *buffer, uint64_t size)
{
	const struct drm_memory *memory = memory_of(node);
	int fd = memory->allocate(node, size);

	if (fd < 0)
		return fd;
	buffer->dmabuf_fd = fd;
	buffer->size = size;
	buffer->is_device_memory = memory->is_device_memory;
	set_device(node, buffer->device);
	buffer->numa_node = pci_numa_node(node->pci);
	return 0;
}

static int allocate_by_name(const char *name, struct fdmabuf_buffer *buffer, uint64_t size)
{
	struct drm_node node;
	uint64_t available;
	int ret = drm_open(name, &node);

	if (ret == -ENOENT)
		return fail(ENODEV, "drm: no node /dev/dri/%s: \"fuse-dmabuf exporters\" lists "
			    "those that give memory", name);
	if (ret)
		return ret;
	ret = check_node(&node);
	if (!ret)
		ret = memory_of(&node)->find(&node, &available);
	if (!ret)
		ret = allocate_on(&node, buffer, size);
	drm_close(&node);
	return ret;
}

/*
 * What is done with each node of the kind that its driver gives memory by. If @error is not 0, the
 * node cannot be opened. A value other than 0 ends the search.
 */
typedef int node_function(void *data, const struct drm_node *node, int error);

/* Returns true if the node is of the PCI device at @address, or if @address is NULL. */
static bool is_wanted(const char *name, const char *address)
{
	char pci[PCI_ADDRESS_SIZE];

	return !address || (drm_read_pci_address(name, pci) && !strcasecmp(pci, address));
}

static int visit_node(const char *name, node_function *function, void *data)
{
	struct drm_node node;
	int ret = drm_open(name, &node);

	if (ret)
		return ret == -ENOENT ? 0 : function(data, &node, ret);
	if (memory_of(&node)->is_render == node.is_render)
		ret = function(data, &node, 0);
	drm_close(&node);
	return ret;
}

static int visit_nodes(const char *address, node_function *function, void *data)
{
	char name[DRM_NODE_NAME_SIZE];
	int ret = 0;

	for (unsigned i = 0; !ret && drm_next_name(i, name); i++)
		if (is_wanted(name, address))
			ret = visit_node(name, function, data);
	return ret;
}

static int no_memory(void)
{
	return fail(EOPNOTSUPP, "drm: no node in /dev/dri gives memory: this machine has no GPU "
		    "whose driver is in the kernel");
}

struct search {
	struct fdmabuf_buffer *buffer;
	uint64_t size;
	int error;	/* of the last node that gave no memory */
};

static int try_node(void *data, const struct drm_node *node, int error)
{
	struct search *search = data;
	uint64_t available;

	search->error = error ? error : memory_of(node)->find(node, &available);
	if (search->error)
		return 0;
	search->error = allocate_on(node, search->buffer, search->size);
	return 1;
}

/* Allocates memory of the first device that has some, or of the PCI device at @address. */
static int allocate_by_search(const char *address, struct fdmabuf_buffer *buffer, uint64_t size)
{
	struct search search = { .buffer = buffer, .size = size };

	if (visit_nodes(address, try_node, &search) || search.error)
		return search.error;
	if (address)
		return fail(ENODEV, "drm: PCI device %s has no node in /dev/dri that gives memory: "
			    "\"fuse-dmabuf exporters\" lists them", address);
	return no_memory();
}

static int drm_allocate(struct fdmabuf_buffer *buffer, const struct fdmabuf_memory *memory)
{
	const char *device = memory->device;

	if (!device || is_pci_address(device))
		return allocate_by_search(device, buffer, memory->bytes);
	if (drm_is_node_name(device))
		return allocate_by_name(device, buffer, memory->bytes);
	return fail(EINVAL, "drm: \"%s\" is neither a node in /dev/dri nor a PCI address: write "
		    "for example drm:card0, drm:renderD128 or drm:0000:03:00.0", device);
}

struct list {
	const struct exporter_report *report;
	bool is_empty;
};

static int list_node(void *data, const struct drm_node *node, int error)
{
	char what[sizeof("drm:") + DRM_NODE_NAME_SIZE], device[DEVICE_SIZE];
	struct list *list = data;
	uint64_t bytes = 0;

	list->is_empty = false;
	snprintf(what, sizeof(what), "drm:%s", node->name);
	if (error)
		return report_failure(list->report, what, node->pci, error);
	set_device(node, device);
	error = memory_of(node)->find(node, &bytes);
	if (error)
		return report_failure(list->report, what, device, error);
	return report_exporter(list->report, (struct fdmabuf_exporter_info){
		.what = what, .device = device, .bytes = bytes, .has_dmabuf = true,
	});
}

static int drm_list(const struct exporter_report *report)
{
	struct list list = { report, true };
	int ret = visit_nodes(NULL, list_node, &list);

	return list.is_empty ? report_failure(report, NULL, NULL, no_memory()) : ret;
}

static int drm_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data,
		     uint64_t length)
{
	return (buffer->is_device_memory ? io_write : host_write)(buffer, offset, data, length);
}

static int drm_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length)
{
	return (buffer->is_device_memory ? io_read : host_read)(buffer, offset, data, length);
}

static int drm_zero(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length)
{
	return (buffer->is_device_memory ? io_zero : host_zero)(buffer, offset, length);
}

const struct exporter exporter_drm = {
	.number = FDMABUF_EXPORTER_DRM,
	.name = "drm",
	.options = OPTION_DEVICE,
	.look_interval = LOOK_INTERVAL_MAPPED,
	.parse = drm_parse,
	.allocate = drm_allocate,
	.list = drm_list,
	.map = dmabuf_map,
	.write = drm_write,
	.read = drm_read,
	.zero = drm_zero,
	.release = dmabuf_release,
};
