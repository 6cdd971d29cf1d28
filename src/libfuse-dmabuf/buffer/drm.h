/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nodes in /dev/dri, and the kinds of memory that their drivers have. */
#ifndef FDMABUF_DRM_H
#define FDMABUF_DRM_H

#include "buffer/exporter.h"
#include "buffer/pci.h"

#define DRM_NODE_NAME_SIZE 24	/* bytes; "card0" or "renderD128" */

/* An open node. */
struct drm_node {
	char name[DRM_NODE_NAME_SIZE];
	char pci[PCI_ADDRESS_SIZE];	/* or "" if the device is no PCI device */
	char driver[32];
	bool is_render;			/* not a card node */
	int fd;
};

/* How a driver gives memory. */
struct drm_memory {
	bool is_render;		/* wants a render node, not a card node */
	bool is_device_memory;	/* the CPU has to use io_*() */
	/* Returns 0 or a negative errno, and sets *bytes that are available, 0 if not known. */
	int (*find)(const struct drm_node *node, uint64_t *bytes);
	/*
	 * Returns a dma-buf of at least @size bytes, which supports mmap(2), or a negative errno.
	 * The memory lives as long as the dma-buf; the node may be closed.
	 */
	int (*allocate)(const struct drm_node *node, uint64_t size);
};

extern const struct drm_memory drm_dumb_memory;
extern const struct drm_memory drm_amdgpu_memory;
extern const struct drm_memory drm_xe_memory;

/* ------------------------------------------------------------- drm-node.c */

/* Returns true for "card" or "renderD" and a number. */
bool drm_is_node_name(const char *name);

/*
 * Sets the name of node number @index and returns true, or false after the last. First come the
 * possible names of render nodes, then those of card nodes.
 */
bool drm_next_name(unsigned index, char name[DRM_NODE_NAME_SIZE]);

/* Stores the PCI address of the node's device. Returns false if there is none. */
bool drm_read_pci_address(const char *name, char address[PCI_ADDRESS_SIZE]);

/*
 * Opens a node, whose descriptor drm_close() closes. Returns -ENOENT without a text if there is no
 * such node.
 */
int drm_open(const char *name, struct drm_node *node);
void drm_close(struct drm_node *node);

/* Exports the buffer object @handle. Returns the descriptor of a dma-buf or a negative errno. */
int drm_export(const struct drm_node *node, uint32_t handle);

#endif
