/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * /dev/dmabuf-test: a dma-buf exporter that misbehaves on command.
 *
 * Every open of the device controls one buffer: DMABUF_TEST_CREATE makes it and
 * returns its dma-buf descriptor, the other calls act on it. The open file does
 * not keep the dma-buf alive: after its last user is gone they fail with ENXIO,
 * all but DMABUF_TEST_STATS.
 *
 * mmap() on the dma-buf descriptor always shows the present content.
 */
#ifndef DMABUF_TEST_H
#define DMABUF_TEST_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* What pages that the buffer has left are filled with. */
#define DMABUF_TEST_POISON	0x6b

/* The largest pieces: 1 GiB of pages of 4 KiB. */
#define DMABUF_TEST_ORDER_MAX	18

#define DMABUF_TEST_VMAP	0x1	/* the kernel may map the buffer, too */

/**
 * struct dmabuf_test_create - make the buffer
 * @size: size of the dma-buf, whole pages
 * @backed: bytes of memory behind it, 0 = all of it; if fewer, they repeat,
 *	so that a buffer may be larger than the machine's memory
 * @chunk_order: pages come in physically contiguous pieces of 2^n pages; no two
 *	neighbours in the buffer are neighbours in memory
 * @flags: DMABUF_TEST_VMAP or 0
 * @fd: out: the dma-buf
 */
struct dmabuf_test_create {
	__u64 size;
	__u64 backed;
	__u32 chunk_order;
	__u32 flags;
	__s32 fd;
	__u32 padding;
};

/**
 * struct dmabuf_test_move - move the content to new memory and poison the old
 * @hold_ms: keep the reservation lock so long after the importers stopped DMA
 * @fence_ms: pipeline the move as GPU drivers do: the new memory is published
 *	at once, but gets its content so much later, when a KERNEL fence signals
 *
 * Returns when the importers have unmapped the old memory: the two waits that
 * dma_buf_invalidate_mappings() asks for. ETIME if they took over ten seconds.
 */
struct dmabuf_test_move {
	__u32 hold_ms;
	__u32 fence_ms;
};

/**
 * struct dmabuf_test_fail_map - make the next mappings fail
 * @count: so many of them
 * @error: with this errno, positive
 */
struct dmabuf_test_fail_map {
	__u32 count;
	__u32 error;
};

/**
 * struct dmabuf_test_map_move - make the next mappings move the buffer
 * @count: so many of them
 * @fence_ms: as in struct dmabuf_test_move, at least 1
 *
 * What GPU drivers do whose memory is not where the importer can reach it: the
 * mapping is that of the new memory, which gets its content later. The old memory
 * is taken away from all importers at once.
 */
struct dmabuf_test_map_move {
	__u32 count;
	__u32 fence_ms;
};

/**
 * struct dmabuf_test_stats - what happened to the buffer since it was made
 * @maps: mappings made
 * @unmaps: mappings undone
 * @failed_maps: mappings refused
 * @segments: entries of the scatter list of the last mapping
 * @attaches: importers that came
 * @detaches: importers that left
 * @moves: moves done
 * @dirty: bytes of poisoned memory that somebody wrote to later
 * @stop_us: longest time that importers took to stop DMA
 * @unmap_us: longest time that importers took to unmap after that
 * @released: 1 after the last user of the dma-buf is gone
 */
struct dmabuf_test_stats {
	__u64 maps;
	__u64 unmaps;
	__u64 failed_maps;
	__u64 segments;
	__u64 attaches;
	__u64 detaches;
	__u64 moves;
	__u64 dirty;
	__u64 stop_us;
	__u64 unmap_us;
	__u64 released;
};

#define DMABUF_TEST_CREATE	_IOWR('T', 0, struct dmabuf_test_create)
#define DMABUF_TEST_MOVE	_IOW('T', 1, struct dmabuf_test_move)
/* Further mappings fail with ENODEV, the content is poisoned. For good. */
#define DMABUF_TEST_REVOKE	_IO('T', 2)
#define DMABUF_TEST_FAIL_MAP	_IOW('T', 3, struct dmabuf_test_fail_map)
/* Each mapping takes so many milliseconds, under the reservation lock. */
#define DMABUF_TEST_DELAY_MAP	_IOW('T', 4, __u32)
#define DMABUF_TEST_STATS	_IOR('T', 5, struct dmabuf_test_stats)
#define DMABUF_TEST_MAP_MOVE	_IOW('T', 6, struct dmabuf_test_map_move)

#endif /* DMABUF_TEST_H */
