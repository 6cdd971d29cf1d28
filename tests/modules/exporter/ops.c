// SPDX-License-Identifier: GPL-2.0-only
/* The operations of the dma-buf, which importers call. */
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "buffer.h"

struct mapping {
	struct sg_table sgt;
	struct backing *backing;
};

static int exporter_attach(struct dma_buf *dmabuf,
			   struct dma_buf_attachment *attach)
{
	struct dmabuf_test *buffer = dmabuf->priv;

	if (!dma_buf_attach_revocable(attach))
		return -EOPNOTSUPP;

	dma_resv_lock(dmabuf->resv, NULL);
	buffer->stats.attaches++;
	dma_resv_unlock(dmabuf->resv);
	return 0;
}

static void exporter_detach(struct dma_buf *dmabuf,
			    struct dma_buf_attachment *attach)
{
	struct dmabuf_test *buffer = dmabuf->priv;

	dma_resv_lock(dmabuf->resv, NULL);
	buffer->stats.detaches++;
	dma_resv_unlock(dmabuf->resv);
}

static int may_map(struct dmabuf_test *buffer, struct dma_buf *dmabuf)
{
	if (buffer->delay_ms)
		msleep(buffer->delay_ms);
	if (buffer->revoked)
		return -ENODEV;
	if (buffer->fail.count) {
		buffer->fail.count--;
		return -(int)buffer->fail.error;
	}
	if (buffer->map_move.count) {
		buffer->map_move.count--;
		return buffer_move_locked(dmabuf, buffer->map_move.fence_ms);
	}
	return 0;
}

static bool misleads(const struct dmabuf_test *buffer, enum dma_data_direction dir)
{
	u32 directions = buffer->mislead.directions;

	if (dir == DMA_BIDIRECTIONAL)
		return directions;
	return directions & (dir == DMA_FROM_DEVICE ? DMABUF_TEST_TO_BUFFER :
						      DMABUF_TEST_FROM_BUFFER);
}

static struct page *chunk_for(const struct dmabuf_test *buffer, size_t i,
			      enum dma_data_direction dir)
{
	if (misleads(buffer, dir) &&
	    i % buffer->mislead.every == buffer->mislead.every - 1)
		return backing_chunk(buffer->elsewhere, i);
	return backing_chunk(buffer->backing, i);
}

static int fill_sgt(struct sg_table *sgt, const struct dmabuf_test *buffer,
		    size_t size, enum dma_data_direction dir)
{
	size_t chunk = backing_chunk_size(buffer->backing);
	struct scatterlist *sg;
	int i, ret;

	ret = sg_alloc_table(sgt, DIV_ROUND_UP(size, chunk), GFP_KERNEL);
	if (ret)
		return ret;
	for_each_sgtable_sg(sgt, sg, i)
		sg_set_page(sg, chunk_for(buffer, i, dir),
			    min(chunk, size - i * chunk), 0);
	return 0;
}

static int make_mapping(struct mapping *mapping, struct dmabuf_test *buffer,
			struct dma_buf_attachment *attach,
			enum dma_data_direction dir)
{
	int ret;

	ret = may_map(buffer, attach->dmabuf);
	if (ret)
		return ret;
	ret = fill_sgt(&mapping->sgt, buffer, attach->dmabuf->size, dir);
	if (ret)
		return ret;
	ret = dma_map_sgtable(attach->dev, &mapping->sgt, dir,
			      DMA_ATTR_DEBUGGING_IGNORE_CACHELINES);
	if (ret)
		sg_free_table(&mapping->sgt);
	return ret;
}

static struct sg_table *exporter_map(struct dma_buf_attachment *attach,
				     enum dma_data_direction dir)
{
	struct dmabuf_test *buffer = attach->dmabuf->priv;
	struct mapping *mapping;
	int ret;

	dma_resv_assert_held(attach->dmabuf->resv);

	mapping = kzalloc_obj(*mapping);
	if (!mapping)
		return ERR_PTR(-ENOMEM);
	ret = make_mapping(mapping, buffer, attach, dir);
	if (ret) {
		buffer->stats.failed_maps++;
		kfree(mapping);
		return ERR_PTR(ret);
	}
	mapping->backing = buffer->backing;
	mapping->backing->maps++;
	buffer->stats.maps++;
	buffer->stats.segments = mapping->sgt.nents;
	return &mapping->sgt;
}

static void exporter_unmap(struct dma_buf_attachment *attach,
			   struct sg_table *sgt, enum dma_data_direction dir)
{
	struct mapping *mapping = container_of(sgt, struct mapping, sgt);
	struct dmabuf_test *buffer = attach->dmabuf->priv;

	dma_resv_assert_held(attach->dmabuf->resv);

	dma_unmap_sgtable(attach->dev, sgt, dir, 0);
	sg_free_table(sgt);
	WRITE_ONCE(mapping->backing->maps, mapping->backing->maps - 1);
	buffer->stats.unmaps++;
	wake_up_all(&buffer->unmapped);
	kfree(mapping);
}

static void exporter_release(struct dma_buf *dmabuf)
{
	struct dmabuf_test *buffer = dmabuf->priv;

	mutex_lock(&buffer->lock);
	buffer->dmabuf = NULL;
	buffer->stats.released = 1;
	buffer_free_backings(buffer);
	if (buffer->elsewhere)
		backing_free(buffer->elsewhere);
	buffer->elsewhere = NULL;
	mutex_unlock(&buffer->lock);
	buffer_put(buffer);
}

/* Pages that a fault inserts at once, because most tests read the whole buffer. */
#define FAULT_PAGES 512

static vm_fault_t insert_pages(struct vm_fault *vmf, struct backing *backing)
{
	pgoff_t nr = min_t(pgoff_t, FAULT_PAGES,
			   (vmf->vma->vm_end - vmf->address) >> PAGE_SHIFT);
	vm_fault_t ret = VM_FAULT_SIGBUS;

	for (pgoff_t i = 0; i < nr; i++) {
		struct page *page = backing_page(backing, vmf->pgoff + i);

		ret = vmf_insert_pfn(vmf->vma, vmf->address + i * PAGE_SIZE,
				     page_to_pfn(page));
		if (ret & VM_FAULT_ERROR)
			break;
	}
	return ret;
}

/* The lock order is that of TTM: mmap_lock, then the reservation lock. */
static vm_fault_t exporter_fault(struct vm_fault *vmf)
{
	struct dma_buf *dmabuf = vmf->vma->vm_private_data;
	struct dmabuf_test *buffer = dmabuf->priv;
	vm_fault_t ret = VM_FAULT_SIGBUS;

	dma_resv_lock(dmabuf->resv, NULL);
	dma_resv_wait_timeout(dmabuf->resv, DMA_RESV_USAGE_KERNEL, false,
			      MAX_SCHEDULE_TIMEOUT);
	if (!buffer->revoked)
		ret = insert_pages(vmf, buffer->backing);
	dma_resv_unlock(dmabuf->resv);
	return ret;
}

static const struct vm_operations_struct exporter_vm_ops = {
	.fault = exporter_fault,
};

static int exporter_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;

	vma->vm_ops = &exporter_vm_ops;
	vma->vm_private_data = dmabuf;
	vm_flags_set(vma, VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
	return 0;
}

static int exporter_vmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	struct dmabuf_test *buffer = dmabuf->priv;
	pgoff_t nr = dmabuf->size >> PAGE_SHIFT;
	struct page **pages;
	void *vaddr;

	dma_resv_assert_held(dmabuf->resv);

	pages = kvmalloc_objs(*pages, nr);
	if (!pages)
		return -ENOMEM;
	for (pgoff_t i = 0; i < nr; i++)
		pages[i] = backing_page(buffer->backing, i);
	vaddr = vmap(pages, nr, VM_MAP, PAGE_KERNEL);
	kvfree(pages);
	if (!vaddr)
		return -ENOMEM;

	iosys_map_set_vaddr(map, vaddr);
	return 0;
}

static void exporter_vunmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	vunmap(map->vaddr);
}

static const struct dma_buf_ops exporter_ops = {
	.attach = exporter_attach,
	.detach = exporter_detach,
	.map_dma_buf = exporter_map,
	.unmap_dma_buf = exporter_unmap,
	.release = exporter_release,
	.mmap = exporter_mmap,
};

static const struct dma_buf_ops exporter_vmap_ops = {
	.attach = exporter_attach,
	.detach = exporter_detach,
	.map_dma_buf = exporter_map,
	.unmap_dma_buf = exporter_unmap,
	.release = exporter_release,
	.mmap = exporter_mmap,
	.vmap = exporter_vmap,
	.vunmap = exporter_vunmap,
};

struct dma_buf *buffer_export(struct dmabuf_test *buffer, size_t size, bool vmap)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);

	info.ops = vmap ? &exporter_vmap_ops : &exporter_ops;
	info.size = size;
	info.flags = O_RDWR;
	info.priv = buffer;
	return dma_buf_export(&info);
}
