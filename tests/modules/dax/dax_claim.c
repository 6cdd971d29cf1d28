// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lets filesystems mount a block device with the option dax, which no NVMe device
 * supports. For tests of what is refused on such a mount: no access to its memory
 * is possible. The parameter of the module is the path of the device, or empty
 * for none.
 */
#include <linux/blkdev.h>
#include <linux/dax.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/string.h>

static DEFINE_MUTEX(claim_lock);
static struct file *claimed;
static struct dax_device *dax;

static long no_access(struct dax_device *dax_dev, pgoff_t offset, long pages,
		      enum dax_access_mode mode, void **address, unsigned long *pfn)
{
	return -EIO;
}

static int no_zeroing(struct dax_device *dax_dev, pgoff_t offset, size_t pages)
{
	return -EIO;
}

static const struct dax_operations claim_ops = {
	.direct_access = no_access,
	.zero_page_range = no_zeroing,
};

static int set_feature(struct gendisk *disk, bool on)
{
	struct queue_limits limits = queue_limits_start_update(disk->queue);

	if (on)
		limits.features |= BLK_FEAT_DAX;
	else
		limits.features &= ~BLK_FEAT_DAX;
	return queue_limits_commit_update_frozen(disk->queue, &limits);
}

static int claim(struct gendisk *disk)
{
	int error;

	dax = alloc_dax(NULL, &claim_ops);
	if (IS_ERR(dax))
		return PTR_ERR(dax);
	error = dax_add_host(dax, disk);
	if (!error) {
		error = set_feature(disk, true);
		if (!error)
			return 0;
		dax_remove_host(disk);
	}
	kill_dax(dax);
	put_dax(dax);
	return error;
}

static void unclaim(void)
{
	struct gendisk *disk;

	if (!claimed)
		return;
	disk = file_bdev(claimed)->bd_disk;
	set_feature(disk, false);
	dax_remove_host(disk);
	kill_dax(dax);
	put_dax(dax);
	bdev_fput(claimed);
	claimed = NULL;
}

static int device_set(const char *value, const struct kernel_param *param)
{
	struct file *file = NULL;
	char path[64];
	int error = 0;

	if (strscpy(path, value, sizeof(path)) < 0)
		return -EINVAL;
	if (*strim(path)) {
		file = bdev_file_open_by_path(strim(path), BLK_OPEN_READ, NULL, NULL);
		if (IS_ERR(file))
			return PTR_ERR(file);
	}

	mutex_lock(&claim_lock);
	unclaim();
	if (file)
		error = claim(file_bdev(file)->bd_disk);
	if (!error)
		claimed = file;
	else
		bdev_fput(file);
	mutex_unlock(&claim_lock);
	return error;
}

static int device_get(char *buffer, const struct kernel_param *param)
{
	int length;

	mutex_lock(&claim_lock);
	length = sysfs_emit(buffer, "%s\n",
			    claimed ? file_bdev(claimed)->bd_disk->disk_name : "");
	mutex_unlock(&claim_lock);
	return length;
}

static const struct kernel_param_ops device_ops = {
	.set = device_set,
	.get = device_get,
};
module_param_cb(device, &device_ops, NULL, 0600);
MODULE_PARM_DESC(device, "path of the block device");

static void __exit dax_claim_exit(void)
{
	unclaim();
}
module_exit(dax_claim_exit);

/* Without an init function this module could not be unloaded. */
static int __init dax_claim_init(void)
{
	return 0;
}
module_init(dax_claim_init);

MODULE_DESCRIPTION("DAX on a device that has none, for tests of refusals");
MODULE_LICENSE("GPL");
