/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nodes in /dev/dri: finds and opens them. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xf86drm.h>

#include "base/error.h"
#include "buffer/drm.h"

#define NODES "/dev/dri"
#define NODES_OF_A_KIND 64u	/* that are looked for; others can be used by their names */
#define FIRST_RENDER_NODE 128u

static bool is_render_name(const char *name)
{
	return !strncmp(name, "renderD", strlen("renderD"));
}

bool drm_is_node_name(const char *name)
{
	const char *digits = name;

	if (strlen(name) >= DRM_NODE_NAME_SIZE)
		return false;
	if (is_render_name(name))
		digits += strlen("renderD");
	else if (!strncmp(name, "card", strlen("card")))
		digits += strlen("card");
	return digits != name && *digits && !digits[strspn(digits, "0123456789")];
}

bool drm_next_name(unsigned index, char name[DRM_NODE_NAME_SIZE])
{
	if (index < NODES_OF_A_KIND)
		snprintf(name, DRM_NODE_NAME_SIZE, "renderD%u", FIRST_RENDER_NODE + index);
	else
		snprintf(name, DRM_NODE_NAME_SIZE, "card%u", index - NODES_OF_A_KIND);
	return index < 2 * NODES_OF_A_KIND;
}

bool drm_read_pci_address(const char *name, char address[PCI_ADDRESS_SIZE])
{
	char path[PATH_MAX], device[PCI_NAME_SIZE];

	snprintf(path, sizeof(path), "/sys/class/drm/%s/device", name);
	if (!read_last_component(path, device) || !is_pci_address(device))
		return false;
	snprintf(address, PCI_ADDRESS_SIZE, "%.*s", PCI_ADDRESS_SIZE - 1, device);
	return true;
}

static int open_error(const char *path)
{
	if (errno == ENOENT)
		return -ENOENT;
	if (errno == EACCES || errno == EPERM)
		return fail(errno, "drm: %s: permission denied: run as root, or add this user to "
			    "the group of the device (render or video)", path);
	return fail(errno, "drm: %s: %s", path, strerror(errno));
}

static int read_driver(struct drm_node *node)
{
	drmVersionPtr version = drmGetVersion(node->fd);

	if (!version)
		return fail(EIO, "drm: %s/%s does not name its driver: is it a DRM device?", NODES,
			    node->name);
	snprintf(node->driver, sizeof(node->driver), "%.*s", version->name_len, version->name);
	drmFreeVersion(version);
	return 0;
}

int drm_open(const char *name, struct drm_node *node)
{
	char path[sizeof(NODES "/") + DRM_NODE_NAME_SIZE];
	int ret;

	*node = (struct drm_node){ .is_render = is_render_name(name) };
	snprintf(node->name, sizeof(node->name), "%s", name);
	snprintf(path, sizeof(path), NODES "/%s", name);
	drm_read_pci_address(name, node->pci);
	node->fd = open(path, O_RDWR | O_CLOEXEC);
	if (node->fd < 0)
		return open_error(path);
	/*
	 * The first program that opens a card becomes its master, and keeps a compositor from
	 * showing pictures there.
	 */
	if (!node->is_render)
		drmDropMaster(node->fd);
	ret = read_driver(node);
	if (ret)
		drm_close(node);
	return ret;
}

void drm_close(struct drm_node *node)
{
	close(node->fd);
}

int drm_export(const struct drm_node *node, uint32_t handle)
{
	int fd;

	if (drmPrimeHandleToFD(node->fd, handle, DRM_CLOEXEC | DRM_RDWR, &fd))
		return fail(errno, "drm: %s (%s) exports no dma-buf: %s", node->name, node->driver,
			    strerror(errno));
	return fd;
}
