/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef DMABUF_TEST_BUFFER_H
#define DMABUF_TEST_BUFFER_H

#include <linux/dma-buf.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/wait.h>

#include "backing.h"
#include "dmabuf-test.h"

/**
 * struct dmabuf_test - one buffer
 * @kref: the control file and the dma-buf share it
 * @lock: protects @dmabuf
 * @dmabuf: NULL before it is made and after its last user is gone
 * @unmapped: woken when the last mapping of some backing is gone
 * @fence_context: of the fences of pipelined moves
 * @fence_seqno: number of the last of them
 * @backing: the present memory
 * @retired: earlier ones, poisoned and watched for late writers
 * @nr_retired: how many
 * @stats: what user space may read
 * @fail: mappings to refuse
 * @map_move: mappings that move the buffer
 * @delay_ms: duration of each mapping
 * @revoked: no mapping is possible any more
 *
 * All from @fence_seqno on is protected by the dma-buf's reservation lock.
 */
struct dmabuf_test {
	struct kref kref;
	struct mutex lock;	/* protects dmabuf */
	struct dma_buf *dmabuf;
	wait_queue_head_t unmapped;
	u64 fence_context;

	u64 fence_seqno;
	struct backing *backing;
	struct list_head retired;
	unsigned int nr_retired;
	struct dmabuf_test_stats stats;
	struct dmabuf_test_fail_map fail;
	struct dmabuf_test_map_move map_move;
	u32 delay_ms;
	bool revoked;
};

/* main.c */
void buffer_put(struct dmabuf_test *buffer);

/* ops.c */
struct dma_buf *buffer_export(struct dmabuf_test *buffer, size_t size, bool vmap);

/*
 * move.c; move and revoke want a reference to @dmabuf and, unless their name says
 * so, no reservation lock
 */
int move_init(void);
void move_exit(void);
int buffer_move(struct dma_buf *dmabuf, const struct dmabuf_test_move *arg);
int buffer_move_locked(struct dma_buf *dmabuf, u32 fence_ms);
int buffer_revoke(struct dma_buf *dmabuf);
u64 buffer_dirty(struct dmabuf_test *buffer);
void buffer_free_backings(struct dmabuf_test *buffer);

#endif /* DMABUF_TEST_BUFFER_H */
