/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Exporter "vfio": the biggest memory BAR of a PCI device that is bound to vfio-pci. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "base/descriptor.h"
#include "base/error.h"
#include "buffer/exporter.h"
#include "buffer/pci.h"
#include "buffer/vfio.h"

#ifndef VFIO_DEVICE_FEATURE_DMA_BUF	/* missing in headers before Linux 6.19 */
#define VFIO_DEVICE_FEATURE_DMA_BUF 11
struct vfio_region_dma_range {
	__u64 offset;
	__u64 length;
};
struct vfio_device_feature_dma_buf {
	__u32 region_index;
	__u32 open_flags;
	__u32 flags;
	__u32 nr_ranges;
	struct vfio_region_dma_range dma_ranges[];
};
#endif

struct vfio_device {
	char address[PCI_ADDRESS_SIZE];
	int container, group, device;
	unsigned bar;
	uint64_t bar_size;
	uint64_t bar_offset;	/* of the BAR in the device descriptor, for mmap(2) */
};

static int check_driver(const char *address)
{
	char path[PATH_MAX], driver[PCI_NAME_SIZE];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", address);
	if (access(path, F_OK))
		return fail(ENODEV, "vfio: no PCI device %s: \"lspci -D\" lists them", address);
	if (vfio_is_bound(address))
		return 0;
	if (pci_read_link(address, "driver", driver))
		return fail(ENODEV, "vfio: %s is bound to %s, not to vfio-pci: bind it with "
			    "\"echo vfio-pci > %s/driver_override; echo %s > %s/driver/unbind; "
			    "echo %s > /sys/bus/pci/drivers_probe\"",
			    address, driver, path, address, path, address);
	return fail(ENODEV, "vfio: %s is bound to no driver: bind it with \"modprobe vfio-pci; "
		    "echo vfio-pci > %s/driver_override; "
		    "echo %s > /sys/bus/pci/drivers_probe\"", address, path, address);
}

/* Opens the device's group. Sets *type to that of its container. */
static int open_group(struct vfio_device *vfio, int *type)
{
	char path[VFIO_GROUP_PATH_SIZE];
	int ret = vfio_find_group(vfio->address, path, type);

	if (ret)
		return ret;
	vfio->group = open(path, O_RDWR | O_CLOEXEC);
	return vfio->group < 0 ? vfio_open_error(vfio->address, path) : 0;
}

static int open_device(struct vfio_device *vfio)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	int type, ret = open_group(vfio, &type);

	if (ret)
		return ret;
	if (ioctl(vfio->group, VFIO_GROUP_GET_STATUS, &status) ||
	    !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return fail(EBUSY, "vfio: the IOMMU group of %s has other devices that are not "
			    "bound to vfio-pci: bind them too", vfio->address);
	vfio->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (vfio->container < 0)
		return vfio_open_error(vfio->address, "/dev/vfio/vfio");
	if (ioctl(vfio->group, VFIO_GROUP_SET_CONTAINER, &vfio->container) ||
	    ioctl(vfio->container, VFIO_SET_IOMMU, type))
		return fail(errno, "vfio: %s: no container for its IOMMU group: %s",
			    vfio->address, strerror(errno));
	vfio->device = ioctl(vfio->group, VFIO_GROUP_GET_DEVICE_FD, vfio->address);
	if (vfio->device < 0)
		return fail(errno, "vfio: %s cannot be opened: %s", vfio->address,
			    strerror(errno));
	return 0;
}

/* Finds the biggest memory BAR. I/O port BARs lack VFIO_REGION_INFO_FLAG_MMAP. */
static int find_bar(struct vfio_device *vfio)
{
	const uint32_t wanted = VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_READ |
				VFIO_REGION_INFO_FLAG_WRITE;

	for (unsigned bar = VFIO_PCI_BAR0_REGION_INDEX; bar <= VFIO_PCI_BAR5_REGION_INDEX; bar++) {
		struct vfio_region_info info = { .argsz = sizeof(info), .index = bar };

		if (ioctl(vfio->device, VFIO_DEVICE_GET_REGION_INFO, &info) ||
		    (info.flags & wanted) != wanted || info.size <= vfio->bar_size)
			continue;
		vfio->bar = bar;
		vfio->bar_size = info.size;
		vfio->bar_offset = info.offset;
	}
	if (!vfio->bar_size)
		return fail(ENODEV, "vfio: %s has no memory BAR that can be mapped: "
			    "choose another device", vfio->address);
	return 0;
}

/* Exports the first @size bytes of the BAR. Returns the dma-buf descriptor or a negative errno. */
static int export_bar(const struct vfio_device *vfio, uint64_t size)
{
	struct vfio_device_feature_dma_buf *export;
	union {
		struct vfio_device_feature feature;
		unsigned char space[sizeof(struct vfio_device_feature) + sizeof(*export) +
				    sizeof(*export->dma_ranges)];
	} request = {
		.feature.argsz = sizeof(request.space),
		.feature.flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF,
	};
	int fd;

	export = (struct vfio_device_feature_dma_buf *)request.feature.data;
	export->region_index = vfio->bar;
	export->open_flags = O_RDWR | O_CLOEXEC;
	export->nr_ranges = 1;
	export->dma_ranges[0].length = size;
	fd = ioctl(vfio->device, VFIO_DEVICE_FEATURE, &request);
	if (fd >= 0)
		return fd;
	if (errno == ENOTTY || errno == EOPNOTSUPP)
		return fail(EOPNOTSUPP, "vfio: this kernel cannot export BAR %u of %s as a "
			    "dma-buf: the export needs Linux 6.19 or later with "
			    "CONFIG_VFIO_PCI_DMABUF, and a device that PCI peer-to-peer DMA "
			    "can reach",
			    vfio->bar, vfio->address);
	return fail(errno, "vfio: BAR %u of %s cannot be exported as a dma-buf: %s", vfio->bar,
		    vfio->address, strerror(errno));
}

static int vfio_parse(const char *argument, struct fdmabuf_memory *memory)
{
	memory->device = argument;
	return 0;
}

static int vfio_allocate(struct fdmabuf_buffer *buffer, const struct fdmabuf_memory *memory)
{
	const char *address = memory->device;
	uint64_t size = memory->bytes;
	struct vfio_device *vfio;
	int ret;

	if (!address || !is_pci_address(address))
		return fail(EINVAL, "vfio: \"%s\" is not a PCI address: "
			    "write vfio:DOMAIN:BUS:DEV.FN, for example vfio:0000:03:00.0",
			    address ? address : "");
	ret = check_driver(address);
	if (ret)
		return ret;
	vfio = calloc(1, sizeof(*vfio));
	if (!vfio)
		return fail(ENOMEM, "vfio: out of memory");
	buffer->vfio = vfio;
	vfio->container = vfio->group = vfio->device = -1;
	snprintf(vfio->address, sizeof(vfio->address), "%s", address);

	ret = open_device(vfio);
	if (!ret)
		ret = find_bar(vfio);
	if (ret)
		return ret;
	if (size > vfio->bar_size)
		return fail(ENOSPC, "vfio: BAR %u of %s has %llu MiB, %llu MiB are needed: "
			    "choose a device with a bigger BAR (or a smaller file)", vfio->bar,
			    address, (unsigned long long)vfio->bar_size >> 20,
			    (unsigned long long)align_up(size, 1 << 20) >> 20);
	buffer->size = size ? size : vfio->bar_size;
	ret = export_bar(vfio, buffer->size);
	if (ret < 0)
		return ret;
	buffer->dmabuf_fd = ret;
	snprintf(buffer->device, sizeof(buffer->device), "vfio %s", address);
	buffer->numa_node = pci_numa_node(address);
	return 0;
}

/* Maps the BAR through the device descriptor: the dma-buf of vfio does not support mmap(2). */
static int vfio_map(struct fdmabuf_buffer *buffer)
{
	void *map = mmap(NULL, buffer->size, PROT_READ | PROT_WRITE, MAP_SHARED,
			 buffer->vfio->device, buffer->vfio->bar_offset);

	if (map == MAP_FAILED)
		return fail(errno, "vfio: BAR %u of %s cannot be mapped: %s", buffer->vfio->bar,
			    buffer->vfio->address, strerror(errno));
	buffer_set_map(buffer, map);
	return 0;
}

/*
 * In bytes. For a mark, a system call costs less than the fault of a page of the map, which the
 * kernel makes page by page.
 */
#define CALL_MAX 64u

static int vfio_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data,
		      uint64_t length)
{
	const struct vfio_device *vfio = buffer->vfio;

	if (length <= CALL_MAX &&
	    pwrite(vfio->device, data, length, vfio->bar_offset + offset) == (ssize_t)length)
		return 0;
	return io_write(buffer, offset, data, length);
}

static int vfio_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length)
{
	const struct vfio_device *vfio = buffer->vfio;

	if (length <= CALL_MAX &&
	    pread(vfio->device, data, length, vfio->bar_offset + offset) == (ssize_t)length)
		return 0;
	return io_read(buffer, offset, data, length);
}

static void vfio_release(struct fdmabuf_buffer *buffer)
{
	struct vfio_device *vfio = buffer->vfio;

	dmabuf_release(buffer);
	if (!vfio)
		return;
	close_fd(&vfio->device);
	close_fd(&vfio->group);
	close_fd(&vfio->container);
	free(vfio);
}

const struct exporter exporter_vfio = {
	.number = FDMABUF_EXPORTER_VFIO,
	.name = "vfio",
	.options = OPTION_SIZE_MISSING | OPTION_DEVICE,
	.look_interval = LOOK_INTERVAL_MAPPED,
	.parse = vfio_parse,
	.allocate = vfio_allocate,
	.list = vfio_list,
	.map = vfio_map,
	.write = vfio_write,
	.read = vfio_read,
	.zero = io_zero,
	.release = vfio_release,
};
