/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Devices for vfio, as sysfs shows them: nothing here opens one. */
#ifndef FDMABUF_VFIO_H
#define FDMABUF_VFIO_H

#include "buffer/exporter.h"

#define VFIO_GROUP_PATH_SIZE 96	/* bytes */

/* Returns true if the driver of a PCI device is vfio-pci, or a variant of it. */
bool vfio_is_bound(const char *address);

/*
 * Sets the path of the device's group. Sets *type to VFIO_TYPE1v2_IOMMU, or to VFIO_NOIOMMU_IOMMU
 * if the group has no IOMMU. Returns a negative errno if the device has no group.
 */
int vfio_find_group(const char *address, char path[VFIO_GROUP_PATH_SIZE], int *type);

/* Sets the text for errno of an open(2) of @path, and returns a negative errno. */
int vfio_open_error(const char *address, const char *path);

/* Implements list. */
int vfio_list(const struct exporter_report *report);

#endif
