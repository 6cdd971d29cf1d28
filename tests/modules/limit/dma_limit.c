// SPDX-License-Identifier: GPL-2.0-only
/*
 * Limits the DMA of a PCI device to 32 bits, like some bridges: memory above
 * 4 GiB is then reached through bounce buffers. For tests. The parameter of the
 * module is the address of the device, or empty for none.
 */
#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/string.h>

static DEFINE_MUTEX(limit_lock);
static struct device *limited;

static void unlimit(void)
{
	if (!limited)
		return;
	limited->bus_dma_limit = 0;
	put_device(limited);
	limited = NULL;
}

static int limit_set(const char *value, const struct kernel_param *param)
{
	struct device *dev = NULL;
	char name[32];

	if (strscpy(name, value, sizeof(name)) < 0)
		return -EINVAL;
	if (*strim(name)) {
		dev = bus_find_device_by_name(&pci_bus_type, NULL, strim(name));
		if (!dev)
			return -ENODEV;
	}

	mutex_lock(&limit_lock);
	unlimit();
	limited = dev;
	if (dev)
		dev->bus_dma_limit = DMA_BIT_MASK(32);
	mutex_unlock(&limit_lock);
	return 0;
}

static int limit_get(char *buffer, const struct kernel_param *param)
{
	int len;

	mutex_lock(&limit_lock);
	len = sysfs_emit(buffer, "%s\n", limited ? dev_name(limited) : "");
	mutex_unlock(&limit_lock);
	return len;
}

static const struct kernel_param_ops limit_ops = {
	.set = limit_set,
	.get = limit_get,
};
module_param_cb(device, &limit_ops, NULL, 0600);
MODULE_PARM_DESC(device, "address of the PCI device, such as 0000:04:00.0");

static void __exit limit_exit(void)
{
	mutex_lock(&limit_lock);
	unlimit();
	mutex_unlock(&limit_lock);
}

static int __init limit_init(void)
{
	return 0;
}

module_init(limit_init);
module_exit(limit_exit);

MODULE_DESCRIPTION("makes a PCI device need bounce buffers, for tests");
MODULE_LICENSE("GPL");
