/* SPDX-License-Identifier: GPL-2.0-only */
/* The buffer of the exporter, and the functions that its files share. */
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
 * @kref: references of the control file and of the dma-buf
 * @lock: protects @dmabuf
 * @dmabuf: NULL before DMABUF_TEST_CREATE and after the last user is gone
 * @unmapped: woken when a mapping is undone
 * @fence_context: fence context of pipelined moves
 * @fence_seqno: number of the last fence in @fence_context
 * @backing: the present memory
 * @retired: earlier memory, poisoned and watched for late writers
 * @nr_retired: number of entries in @retired
 * @stats: what DMABUF_TEST_STATS returns
 * @fail: mappings to refuse
 * @map_move: mappings that move the buffer
 * @mislead: mappings that show other memory
 * @elsewhere: that memory, or NULL
 * @delay_ms: how long each mapping takes
 * @revoked: no mapping is possible any more
 *
 * The reservation lock of the dma-buf protects @fence_seqno and all members
 * after it.
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
	struct dmabuf_test_mislead mislead;
	struct backing *elsewhere;
	u32 delay_ms;
	bool revoked;
};

/* main.c */
void buffer_put(struct dmabuf_test *buffer);

/* ops.c */
struct dma_buf *buffer_export(struct dmabuf_test *buffer, size_t size, bool vmap);

/*
 * move.c: the caller of buffer_move() and buffer_revoke() holds a reference to
 * @dmabuf and not the reservation lock. The caller of buffer_move_locked() holds
 * both.
 */
int move_init(void);
void move_exit(void);
int buffer_move(struct dma_buf *dmabuf, const struct dmabuf_test_move *arg);
int buffer_move_locked(struct dma_buf *dmabuf, u32 fence_ms);
int buffer_revoke(struct dma_buf *dmabuf);
u64 buffer_dirty(struct dmabuf_test *buffer);
void buffer_free_backings(struct dmabuf_test *buffer);

#endif /* DMABUF_TEST_BUFFER_H */
