// SPDX-License-Identifier: GPL-2.0-only
/* Moves and revocations: takes memory away from the importers. */
#include <linux/delay.h>
#include <linux/dma-fence.h>
#include <linux/dma-resv.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "buffer.h"

/* Ten seconds: importers must unmap in bounded time, and no controller needs so long. */
#define UNMAP_TIMEOUT (10 * HZ)

/*
 * Number of moves for which memory that the buffer has left stays poisoned and
 * watched, so that a late DMA writes there and not to other memory.
 */
#define MAX_RETIRED 4

/* The second half of a pipelined move, freed with its first member. */
struct pending_copy {
	struct dma_fence fence;
	struct delayed_work work;
	struct dma_buf *dmabuf;
	struct backing *from;
	struct backing *to;
};

/* Importers may wait for these copies while they reclaim memory. */
static struct workqueue_struct *copy_wq;

int move_init(void)
{
	copy_wq = alloc_workqueue("dmabuf-test", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	return copy_wq ? 0 : -ENOMEM;
}

void move_exit(void)
{
	destroy_workqueue(copy_wq);
}

static const char *fence_name(struct dma_fence *fence)
{
	return "dmabuf-test";
}

static const struct dma_fence_ops fence_ops = {
	.get_driver_name = fence_name,
	.get_timeline_name = fence_name,
};

static void copy_and_signal(struct work_struct *work)
{
	struct pending_copy *copy =
		container_of(work, struct pending_copy, work.work);
	struct dma_buf *dmabuf = copy->dmabuf;

	backing_copy(copy->to, copy->from);
	backing_poison(copy->from);
	dma_fence_signal(&copy->fence);
	dma_fence_put(&copy->fence);
	dma_buf_put(dmabuf);
}

/* The first wait. After it importers neither write nor use what they have read. */
static void stop_dma(struct dmabuf_test *buffer, struct dma_buf *dmabuf,
		     u32 hold_ms)
{
	ktime_t start = ktime_get();
	u64 took;

	unmap_mapping_range(dmabuf->file->f_mapping, 0, 0, 1);
	/*
	 * Exporters invalidate to reclaim memory, so importers must not reclaim
	 * memory for that: with this lockdep reports an allocation in here, and
	 * a lock that is also held during an allocation elsewhere.
	 */
	fs_reclaim_acquire(GFP_KERNEL);
	dma_buf_invalidate_mappings(dmabuf);
	fs_reclaim_release(GFP_KERNEL);
	dma_resv_wait_timeout(dmabuf->resv, DMA_RESV_USAGE_BOOKKEEP, false,
			      MAX_SCHEDULE_TIMEOUT);
	took = ktime_us_delta(ktime_get(), start);
	buffer->stats.stop_us = max(buffer->stats.stop_us, took);
	if (hold_ms)
		msleep(hold_ms);
}

/* The second wait. After it importers do not touch the memory at all. */
static int wait_unmapped(struct dmabuf_test *buffer, struct dma_buf *dmabuf,
			 struct backing *backing)
{
	ktime_t start = ktime_get();
	u64 took;

	if (!wait_event_timeout(buffer->unmapped, !READ_ONCE(backing->maps),
				UNMAP_TIMEOUT))
		return -ETIME;

	dma_resv_lock(dmabuf->resv, NULL);
	took = ktime_us_delta(ktime_get(), start);
	buffer->stats.unmap_us = max(buffer->stats.unmap_us, took);
	dma_resv_unlock(dmabuf->resv);
	return 0;
}

static void free_retired(struct dmabuf_test *buffer, struct backing *backing)
{
	buffer->stats.dirty += backing_dirty(backing);
	list_del(&backing->retired);
	buffer->nr_retired--;
	backing_free(backing);
}

/*
 * Frees the oldest retired memory, except what a late importer still has mapped.
 * No pipelined move still copies from any of it, because stop_dma() has waited
 * for the fences.
 */
static void trim_retired(struct dmabuf_test *buffer)
{
	struct backing *backing, *next;

	list_for_each_entry_safe(backing, next, &buffer->retired, retired) {
		if (buffer->nr_retired < MAX_RETIRED)
			break;
		if (!backing->maps)
			free_retired(buffer, backing);
	}
}

static void publish(struct dmabuf_test *buffer, struct backing *backing)
{
	trim_retired(buffer);
	list_add_tail(&buffer->backing->retired, &buffer->retired);
	buffer->nr_retired++;
	buffer->backing = backing;
	buffer->stats.moves++;
}

static void copy_now(struct dmabuf_test *buffer, struct backing *new)
{
	struct backing *old = buffer->backing;

	backing_copy(new, old);
	backing_poison(old);
	publish(buffer, new);
}

static void copy_later(struct dmabuf_test *buffer, struct dma_buf *dmabuf,
		       struct backing *new, struct pending_copy *copy, u32 ms)
{
	get_dma_buf(dmabuf);
	copy->dmabuf = dmabuf;
	copy->from = buffer->backing;
	copy->to = new;
	INIT_DELAYED_WORK(&copy->work, copy_and_signal);
	backing_poison(new);

	dma_fence_init(&copy->fence, &fence_ops, NULL, buffer->fence_context,
		       ++buffer->fence_seqno);
	dma_resv_add_fence(dmabuf->resv, &copy->fence, DMA_RESV_USAGE_KERNEL);
	publish(buffer, new);
	queue_delayed_work(copy_wq, &copy->work, msecs_to_jiffies(ms));
}

static int move_locked(struct dmabuf_test *buffer, struct dma_buf *dmabuf,
		       const struct dmabuf_test_move *arg, struct backing *new,
		       struct pending_copy *copy)
{
	int ret;

	if (buffer->revoked)
		return -ENODEV;
	if (dmabuf->vmapping_counter)
		return -EBUSY;
	ret = dma_resv_reserve_fences(dmabuf->resv, 1);
	if (ret)
		return ret;

	stop_dma(buffer, dmabuf, arg->hold_ms);
	if (copy)
		copy_later(buffer, dmabuf, new, copy, arg->fence_ms);
	else
		copy_now(buffer, new);
	return 0;
}

/* Allocates the new memory for a move, and *copy for a pipelined move. */
static struct backing *prepare_move(struct dmabuf_test *buffer, bool pipelined,
				    struct pending_copy **copy)
{
	struct backing *old = buffer->backing, *new;

	new = backing_alloc(old->nr * backing_chunk_size(old), old->order);
	*copy = NULL;
	if (!new || !pipelined)
		return new;

	*copy = kzalloc_obj(**copy);
	if (!*copy) {
		backing_free(new);
		return NULL;
	}
	return new;
}

int buffer_move(struct dma_buf *dmabuf, const struct dmabuf_test_move *arg)
{
	struct dmabuf_test *buffer = dmabuf->priv;
	struct pending_copy *copy;
	struct backing *old, *new;
	int ret;

	new = prepare_move(buffer, arg->fence_ms, &copy);
	if (!new)
		return -ENOMEM;

	dma_resv_lock(dmabuf->resv, NULL);
	old = buffer->backing;
	ret = move_locked(buffer, dmabuf, arg, new, copy);
	dma_resv_unlock(dmabuf->resv);
	if (!ret)
		return wait_unmapped(buffer, dmabuf, old);
	kfree(copy);
	backing_free(new);
	return ret;
}

/* Makes a pipelined move for an importer that maps the buffer. */
int buffer_move_locked(struct dma_buf *dmabuf, u32 fence_ms)
{
	struct dmabuf_test_move arg = { .fence_ms = fence_ms };
	struct dmabuf_test *buffer = dmabuf->priv;
	struct pending_copy *copy;
	struct backing *new;
	int ret;

	new = prepare_move(buffer, true, &copy);
	if (!new)
		return -ENOMEM;
	ret = move_locked(buffer, dmabuf, &arg, new, copy);
	if (ret) {
		kfree(copy);
		backing_free(new);
	}
	return ret;
}

int buffer_revoke(struct dma_buf *dmabuf)
{
	struct dmabuf_test *buffer = dmabuf->priv;
	struct backing *backing;

	dma_resv_lock(dmabuf->resv, NULL);
	backing = buffer->backing;
	if (!buffer->revoked) {
		buffer->revoked = true;
		stop_dma(buffer, dmabuf, 0);
		backing_poison(backing);
	}
	dma_resv_unlock(dmabuf->resv);
	return wait_unmapped(buffer, dmabuf, backing);
}

/* Returns how many bytes were written to after they were poisoned. */
u64 buffer_dirty(struct dmabuf_test *buffer)
{
	u64 dirty = buffer->stats.dirty;
	struct backing *backing;

	list_for_each_entry(backing, &buffer->retired, retired)
		dirty += backing_dirty(backing);
	if (buffer->revoked)
		dirty += backing_dirty(buffer->backing);
	return dirty;
}

void buffer_free_backings(struct dmabuf_test *buffer)
{
	struct backing *backing, *next;

	if (buffer->revoked)
		buffer->stats.dirty += backing_dirty(buffer->backing);
	list_for_each_entry_safe(backing, next, &buffer->retired, retired)
		free_retired(buffer, backing);
	backing_free(buffer->backing);
	buffer->backing = NULL;
}
