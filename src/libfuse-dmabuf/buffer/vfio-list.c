/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lists devices for vfio without opening them: the kernel resets a device that is opened, and lets
 * no second program open it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/error.h"
#include "buffer/pci.h"
#include "buffer/vfio.h"

bool vfio_is_bound(const char *address)
{
	char driver[PCI_NAME_SIZE];

	return pci_read_link(address, "driver", driver) && strstr(driver, "vfio");
}

int vfio_find_group(const char *address, char path[VFIO_GROUP_PATH_SIZE], int *type)
{
	char group[PCI_NAME_SIZE];

	if (!pci_read_link(address, "iommu_group", group))
		return fail(ENODEV, "vfio: %s has no IOMMU group: switch the IOMMU on "
			    "(intel_iommu=on or amd_iommu=on), or load vfio with "
			    "enable_unsafe_noiommu_mode=1", address);
	*type = VFIO_NOIOMMU_IOMMU;
	snprintf(path, VFIO_GROUP_PATH_SIZE, "/dev/vfio/noiommu-%s", group);
	if (!access(path, F_OK))
		return 0;
	*type = VFIO_TYPE1v2_IOMMU;
	snprintf(path, VFIO_GROUP_PATH_SIZE, "/dev/vfio/%s", group);
	return 0;
}

int vfio_open_error(const char *address, const char *path)
{
	if (errno == EBUSY)
		return fail(EBUSY, "vfio: %s: in use: end the program that has device %s open",
			    path, address);
	if (errno == EACCES || errno == EPERM)
		return fail(errno, "vfio: %s: permission denied: "
			    "run as root, or give this user access to this file", path);
	return fail(errno, "vfio: %s: %s", path, strerror(errno));
}

static int check_version(void)
{
	unsigned major = 0, minor = 0;
	struct utsname kernel;

	if (!uname(&kernel) && sscanf(kernel.release, "%u.%u", &major, &minor) == 2 &&
	    (major < 6 || (major == 6 && minor < 19)))
		return fail(EOPNOTSUPP, "vfio: Linux %u.%u cannot export BARs as dma-bufs: the "
			    "export needs Linux 6.19 or later with CONFIG_VFIO_PCI_DMABUF",
			    major, minor);
	return 0;
}

/* Returns a negative errno if the device cannot be opened, as far as that can be seen. */
static int check_device(const char *address)
{
	char path[VFIO_GROUP_PATH_SIZE];
	int type, ret = vfio_find_group(address, path, &type);

	if (ret)
		return ret;
	if (faccessat(AT_FDCWD, path, R_OK | W_OK, AT_EACCESS))
		return vfio_open_error(address, path);
	return check_version();
}

static int list_device(const struct exporter_report *report, const char *address)
{
	char what[NAME_MAX + sizeof("vfio:")];
	int ret = check_device(address);

	snprintf(what, sizeof(what), "vfio:%s", address);
	if (ret)
		return report_failure(report, what, address, ret);
	return report_exporter(report, (struct fdmabuf_exporter_info){
		.what = what,
		.device = address,
		.bytes = pci_biggest_bar(address),
		.has_dmabuf = true,
	});
}

static int no_device(void)
{
	if (access("/sys/bus/pci/drivers/vfio-pci", F_OK))
		return fail(EOPNOTSUPP, "vfio: no driver vfio-pci: load it with \"modprobe "
			    "vfio-pci\" (kernel option CONFIG_VFIO_PCI)");
	return fail(ENODEV, "vfio: no PCI device is bound to vfio-pci: bind one with \"echo "
		    "vfio-pci > /sys/bus/pci/devices/ADDRESS/driver_override; echo ADDRESS > "
		    "/sys/bus/pci/drivers_probe\"");
}

int vfio_list(const struct exporter_report *report)
{
	DIR *devices = opendir("/sys/bus/pci/devices");
	const struct dirent *entry;
	bool is_empty = true;
	int ret = 0;

	while (!ret && devices && (entry = readdir(devices))) {
		if (!is_pci_address(entry->d_name) || !vfio_is_bound(entry->d_name))
			continue;
		is_empty = false;
		ret = list_device(report, entry->d_name);
	}
	if (devices)
		closedir(devices);
	return is_empty ? report_failure(report, NULL, NULL, no_device()) : ret;
}
