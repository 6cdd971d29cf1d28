// SPDX-License-Identifier: GPL-2.0-only
/* The device /dev/dmabuf-test and its commands, which dmabuf-test.h describes. */
#include <linux/dma-resv.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "buffer.h"

/* A running command. Each runs alone, so that its waits do not see the next move. */
struct command {
	struct dmabuf_test *buffer;
	struct dma_buf *dmabuf;
};

static int command_begin(struct command *cmd, struct dmabuf_test *buffer)
{
	mutex_lock(&buffer->lock);
	if (buffer->dmabuf && get_file_active(&buffer->dmabuf->file)) {
		cmd->buffer = buffer;
		cmd->dmabuf = buffer->dmabuf;
		return 0;
	}
	mutex_unlock(&buffer->lock);
	return -ENXIO;
}

static void command_end(struct command *cmd)
{
	dma_buf_put(cmd->dmabuf);
	mutex_unlock(&cmd->buffer->lock);
}

static void buffer_free(struct kref *kref)
{
	struct dmabuf_test *buffer =
		container_of(kref, struct dmabuf_test, kref);

	mutex_destroy(&buffer->lock);
	kfree(buffer);
}

void buffer_put(struct dmabuf_test *buffer)
{
	kref_put(&buffer->kref, buffer_free);
}

static int check_create(const struct dmabuf_test_create *arg)
{
	size_t chunk = PAGE_SIZE << arg->chunk_order;

	if (arg->chunk_order > DMABUF_TEST_ORDER_MAX || arg->padding ||
	    arg->flags & ~DMABUF_TEST_VMAP)
		return -EINVAL;
	if (!arg->size || !PAGE_ALIGNED(arg->size) || arg->backed > arg->size)
		return -EINVAL;
	/* Memory that repeats must consist of whole pieces. */
	if (arg->backed && !IS_ALIGNED(arg->backed, chunk))
		return -EINVAL;
	return 0;
}

/* Caller holds buffer->lock and turns the reference to the dma-buf into a descriptor. */
static struct dma_buf *create_locked(struct dmabuf_test *buffer,
				     const struct dmabuf_test_create *arg)
{
	struct dma_buf *dmabuf;

	if (buffer->dmabuf || buffer->stats.released)
		return ERR_PTR(-EBUSY);
	buffer->backing = backing_alloc(arg->backed ?: arg->size,
					arg->chunk_order);
	if (!buffer->backing)
		return ERR_PTR(-ENOMEM);

	dmabuf = buffer_export(buffer, arg->size, arg->flags & DMABUF_TEST_VMAP);
	if (IS_ERR(dmabuf)) {
		backing_free(buffer->backing);
		return dmabuf;
	}
	kref_get(&buffer->kref);
	buffer->dmabuf = dmabuf;
	return dmabuf;
}

static int buffer_create(struct dmabuf_test *buffer,
			 struct dmabuf_test_create __user *uarg)
{
	struct dmabuf_test_create arg;
	struct dma_buf *dmabuf;
	int ret;

	if (copy_from_user(&arg, uarg, sizeof(arg)))
		return -EFAULT;
	ret = check_create(&arg);
	if (ret)
		return ret;

	mutex_lock(&buffer->lock);
	dmabuf = create_locked(buffer, &arg);
	mutex_unlock(&buffer->lock);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);

	arg.fd = dma_buf_fd(dmabuf, O_CLOEXEC);
	if (arg.fd < 0) {
		dma_buf_put(dmabuf);
		return arg.fd;
	}
	return copy_to_user(uarg, &arg, sizeof(arg)) ? -EFAULT : 0;
}

static int command_move(struct dmabuf_test *buffer, void __user *uarg)
{
	struct dmabuf_test_move arg;
	struct command cmd;
	int ret;

	if (copy_from_user(&arg, uarg, sizeof(arg)))
		return -EFAULT;
	ret = command_begin(&cmd, buffer);
	if (ret)
		return ret;
	ret = buffer_move(cmd.dmabuf, &arg);
	command_end(&cmd);
	return ret;
}

static int command_revoke(struct dmabuf_test *buffer)
{
	struct command cmd;
	int ret;

	ret = command_begin(&cmd, buffer);
	if (ret)
		return ret;
	ret = buffer_revoke(cmd.dmabuf);
	command_end(&cmd);
	return ret;
}

/* Changes a setting of the buffer that its reservation lock protects. */
static int change(struct dmabuf_test *buffer, void *setting, const void *value,
		  size_t size)
{
	struct command cmd;
	int ret;

	ret = command_begin(&cmd, buffer);
	if (ret)
		return ret;
	dma_resv_lock(cmd.dmabuf->resv, NULL);
	memcpy(setting, value, size);
	dma_resv_unlock(cmd.dmabuf->resv);
	command_end(&cmd);
	return 0;
}

static int command_fail_map(struct dmabuf_test *buffer, void __user *uarg)
{
	struct dmabuf_test_fail_map arg;

	if (copy_from_user(&arg, uarg, sizeof(arg)))
		return -EFAULT;
	if (!arg.error || arg.error > MAX_ERRNO)
		return -EINVAL;
	return change(buffer, &buffer->fail, &arg, sizeof(arg));
}

static int command_map_move(struct dmabuf_test *buffer, void __user *uarg)
{
	struct dmabuf_test_map_move arg;

	if (copy_from_user(&arg, uarg, sizeof(arg)))
		return -EFAULT;
	if (!arg.fence_ms)
		return -EINVAL;
	return change(buffer, &buffer->map_move, &arg, sizeof(arg));
}

/* Two pieces are enough: nobody looks at what is there. */
static int add_elsewhere(struct dmabuf_test *buffer)
{
	struct backing *backing;
	struct command cmd;
	int ret;

	ret = command_begin(&cmd, buffer);
	if (ret)
		return ret;
	if (!buffer->elsewhere) {
		backing = backing_alloc(2 * backing_chunk_size(buffer->backing),
					buffer->backing->order);
		dma_resv_lock(cmd.dmabuf->resv, NULL);
		buffer->elsewhere = backing;
		dma_resv_unlock(cmd.dmabuf->resv);
	}
	ret = buffer->elsewhere ? 0 : -ENOMEM;
	command_end(&cmd);
	return ret;
}

static int command_mislead(struct dmabuf_test *buffer, void __user *uarg)
{
	struct dmabuf_test_mislead arg;
	int ret;

	if (copy_from_user(&arg, uarg, sizeof(arg)))
		return -EFAULT;
	if (!arg.every ||
	    arg.directions & ~(DMABUF_TEST_TO_BUFFER | DMABUF_TEST_FROM_BUFFER))
		return -EINVAL;
	ret = add_elsewhere(buffer);
	if (ret)
		return ret;
	return change(buffer, &buffer->mislead, &arg, sizeof(arg));
}

static int command_delay_map(struct dmabuf_test *buffer, void __user *uarg)
{
	u32 ms;

	if (get_user(ms, (u32 __user *)uarg))
		return -EFAULT;
	return change(buffer, &buffer->delay_ms, &ms, sizeof(ms));
}

/* A pipelined move must be over before its old memory counts as poisoned. */
static void read_live_stats(struct command *cmd, struct dmabuf_test_stats *stats)
{
	dma_resv_lock(cmd->dmabuf->resv, NULL);
	dma_resv_wait_timeout(cmd->dmabuf->resv, DMA_RESV_USAGE_KERNEL, false,
			      MAX_SCHEDULE_TIMEOUT);
	*stats = cmd->buffer->stats;
	stats->dirty = buffer_dirty(cmd->buffer);
	dma_resv_unlock(cmd->dmabuf->resv);
}

static int command_stats(struct dmabuf_test *buffer, void __user *uarg)
{
	struct dmabuf_test_stats stats;
	struct command cmd;

	if (!command_begin(&cmd, buffer)) {
		read_live_stats(&cmd, &stats);
		command_end(&cmd);
	} else {
		mutex_lock(&buffer->lock);
		stats = buffer->stats;
		mutex_unlock(&buffer->lock);
	}
	return copy_to_user(uarg, &stats, sizeof(stats)) ? -EFAULT : 0;
}

static long control_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct dmabuf_test *buffer = file->private_data;
	void __user *uarg = (void __user *)arg;

	switch (cmd) {
	case DMABUF_TEST_CREATE:
		return buffer_create(buffer, uarg);
	case DMABUF_TEST_MOVE:
		return command_move(buffer, uarg);
	case DMABUF_TEST_REVOKE:
		return command_revoke(buffer);
	case DMABUF_TEST_FAIL_MAP:
		return command_fail_map(buffer, uarg);
	case DMABUF_TEST_DELAY_MAP:
		return command_delay_map(buffer, uarg);
	case DMABUF_TEST_MAP_MOVE:
		return command_map_move(buffer, uarg);
	case DMABUF_TEST_MISLEAD:
		return command_mislead(buffer, uarg);
	case DMABUF_TEST_STATS:
		return command_stats(buffer, uarg);
	default:
		return -ENOTTY;
	}
}

static int control_open(struct inode *inode, struct file *file)
{
	struct dmabuf_test *buffer;

	buffer = kzalloc_obj(*buffer);
	if (!buffer)
		return -ENOMEM;
	kref_init(&buffer->kref);
	mutex_init(&buffer->lock);
	init_waitqueue_head(&buffer->unmapped);
	INIT_LIST_HEAD(&buffer->retired);
	buffer->fence_context = dma_fence_context_alloc(1);
	file->private_data = buffer;
	return 0;
}

static int control_release(struct inode *inode, struct file *file)
{
	buffer_put(file->private_data);
	return 0;
}

static const struct file_operations control_fops = {
	.owner = THIS_MODULE,
	.open = control_open,
	.release = control_release,
	.unlocked_ioctl = control_ioctl,
};

static struct miscdevice control_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "dmabuf-test",
	.fops = &control_fops,
};

static int __init dmabuf_test_init(void)
{
	int ret;

	ret = move_init();
	if (ret)
		return ret;
	ret = misc_register(&control_device);
	if (ret)
		move_exit();
	return ret;
}

static void __exit dmabuf_test_exit(void)
{
	misc_deregister(&control_device);
	move_exit();
}

module_init(dmabuf_test_init);
module_exit(dmabuf_test_exit);

MODULE_DESCRIPTION("dma-buf exporter that misbehaves on command, for tests");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("DMA_BUF");
