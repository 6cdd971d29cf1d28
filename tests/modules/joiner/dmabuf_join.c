// SPDX-License-Identifier: GPL-2.0-only
/*
 * Joins two dma-bufs of any exporters into one: memory of the host and of a
 * device in one buffer, like that of a driver that moves memory by parts.
 */
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "dmabuf-join.h"

#define PARTS 2

struct joined {
	struct dma_buf *parts[PARTS];
};

/* The attachment of an importer. The parts stay mapped as long as it is attached. */
struct joined_attachment {
	struct dma_buf_attachment *attach[PARTS];
	struct sg_table *sgt[PARTS];
};

static void part_invalidate(struct dma_buf_attachment *attach)
{
	WARN_ONCE(1, "the parts of a joined dma-buf must not move\n");
}

static const struct dma_buf_attach_ops part_attach_ops = {
	.allow_peer2peer = true,
	.invalidate_mappings = part_invalidate,
};

static void unmap_parts(struct joined_attachment *parts, struct joined *joined)
{
	for (int i = 0; i < PARTS; i++) {
		if (!parts->attach[i])
			continue;
		if (parts->sgt[i])
			dma_buf_unmap_attachment_unlocked(parts->attach[i],
							  parts->sgt[i],
							  DMA_BIDIRECTIONAL);
		dma_buf_detach(joined->parts[i], parts->attach[i]);
	}
	kfree(parts);
}

static int map_part(struct joined_attachment *parts, struct joined *joined, int i,
		    struct device *dev)
{
	struct dma_buf_attachment *attach;
	struct sg_table *sgt;

	attach = dma_buf_dynamic_attach(joined->parts[i], dev, &part_attach_ops,
					NULL);
	if (IS_ERR(attach))
		return PTR_ERR(attach);
	parts->attach[i] = attach;
	sgt = dma_buf_map_attachment_unlocked(attach, DMA_BIDIRECTIONAL);
	if (IS_ERR(sgt))
		return PTR_ERR(sgt);
	parts->sgt[i] = sgt;
	return 0;
}

/*
 * Maps the parts. The function that maps the whole could not do this: it holds
 * the reservation lock of the whole, under which those of the parts must not be
 * taken.
 */
static int joined_attach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach)
{
	struct joined *joined = dmabuf->priv;
	struct joined_attachment *parts;
	int ret;

	parts = kzalloc_obj(*parts);
	if (!parts)
		return -ENOMEM;
	for (int i = 0; i < PARTS; i++) {
		ret = map_part(parts, joined, i, attach->dev);
		if (ret) {
			unmap_parts(parts, joined);
			return ret;
		}
	}
	attach->priv = parts;
	return 0;
}

static void joined_detach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach)
{
	unmap_parts(attach->priv, dmabuf->priv);
}

static struct sg_table *joined_map(struct dma_buf_attachment *attach,
				   enum dma_data_direction dir)
{
	struct joined_attachment *parts = attach->priv;
	struct scatterlist *from, *to;
	struct sg_table *sgt;
	unsigned int j;
	int ret;

	sgt = kzalloc_obj(*sgt);
	if (!sgt)
		return ERR_PTR(-ENOMEM);
	ret = sg_alloc_table(sgt, parts->sgt[0]->nents + parts->sgt[1]->nents,
			     GFP_KERNEL);
	if (ret) {
		kfree(sgt);
		return ERR_PTR(ret);
	}

	to = sgt->sgl;
	for (int i = 0; i < PARTS; i++) {
		for_each_sgtable_dma_sg(parts->sgt[i], from, j) {
			sg_dma_address(to) = sg_dma_address(from);
			sg_dma_len(to) = sg_dma_len(from);
			to = sg_next(to);
		}
	}
	return sgt;
}

static void joined_unmap(struct dma_buf_attachment *attach, struct sg_table *sgt,
			 enum dma_data_direction dir)
{
	sg_free_table(sgt);
	kfree(sgt);
}

static void joined_free(struct joined *joined)
{
	for (int i = 0; i < PARTS; i++)
		if (joined->parts[i])
			dma_buf_put(joined->parts[i]);
	kfree(joined);
}

static void joined_release(struct dma_buf *dmabuf)
{
	joined_free(dmabuf->priv);
}

static const struct dma_buf_ops joined_ops = {
	.attach = joined_attach,
	.detach = joined_detach,
	.map_dma_buf = joined_map,
	.unmap_dma_buf = joined_unmap,
	.release = joined_release,
};

static struct dma_buf *join(const struct dmabuf_join *arg)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct dma_buf *dmabuf, *part;
	struct joined *joined;

	joined = kzalloc_obj(*joined);
	if (!joined)
		return ERR_PTR(-ENOMEM);
	for (int i = 0; i < PARTS; i++) {
		part = dma_buf_get(arg->parts[i]);
		if (IS_ERR(part)) {
			joined_free(joined);
			return part;
		}
		joined->parts[i] = part;
		info.size += part->size;
	}

	info.ops = &joined_ops;
	info.flags = O_RDWR;
	info.priv = joined;
	dmabuf = dma_buf_export(&info);
	if (IS_ERR(dmabuf))
		joined_free(joined);
	return dmabuf;
}

static long control_ioctl(struct file *file, unsigned int cmd, unsigned long uarg)
{
	struct dma_buf *dmabuf;
	struct dmabuf_join arg;
	int fd;

	if (cmd != DMABUF_JOIN)
		return -ENOTTY;
	if (copy_from_user(&arg, (void __user *)uarg, sizeof(arg)))
		return -EFAULT;
	dmabuf = join(&arg);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	fd = dma_buf_fd(dmabuf, O_CLOEXEC);
	if (fd < 0)
		dma_buf_put(dmabuf);
	return fd;
}

static const struct file_operations control_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = control_ioctl,
};

static struct miscdevice control_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "dmabuf-join",
	.fops = &control_fops,
};
module_misc_device(control_device);

MODULE_DESCRIPTION("dma-buf that consists of two others, for tests");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("DMA_BUF");
