/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * /dev/dmabuf-test: a dma-buf exporter that misbehaves on command.
 *
 * Each open file of the device controls one buffer: DMABUF_TEST_CREATE makes the
 * buffer and returns its dma-buf descriptor, the other calls act on the buffer.
 * The open file does not keep the dma-buf alive: after the last user of the
 * dma-buf is gone, all calls but DMABUF_TEST_STATS fail with ENXIO.
 *
 * mmap() on the dma-buf descriptor always shows the present content.
 */
#ifndef DMABUF_TEST_H
#define DMABUF_TEST_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* The byte that fills memory that the buffer has left. */
#define DMABUF_TEST_POISON	0x6b

/* The largest pieces: 1 GiB of pages of 4 KiB. */
#define DMABUF_TEST_ORDER_MAX	18

#define DMABUF_TEST_VMAP	0x1	/* the kernel may map the buffer, too */

/**
 * struct dmabuf_test_create - make the buffer
 * @size: size of the dma-buf, whole pages
 * @backed: bytes of memory behind the dma-buf, 0 = @size; less memory repeats, so
 *	that a buffer may be larger than the memory of the machine
 * @chunk_order: n for physically contiguous pieces of 2^n pages; no two pieces
 *	that are neighbours in the buffer are neighbours in memory
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
 * @hold_ms: ms to keep the reservation lock after the importers stopped DMA
 * @fence_ms: pipeline the move as GPU drivers do: the new memory is published
 *	at once, but gets its content @fence_ms later, when a KERNEL fence
 *	signals; 0: do not pipeline
 *
 * Returns when the importers have unmapped the old memory, after the two waits
 * that dma_buf_invalidate_mappings() asks for. Fails with ETIME if unmapping
 * takes over ten seconds.
 */
struct dmabuf_test_move {
	__u32 hold_ms;
	__u32 fence_ms;
};

/**
 * struct dmabuf_test_fail_map - make the next mappings fail
 * @count: how many mappings fail
 * @error: the errno that they fail with, positive
 */
struct dmabuf_test_fail_map {
	__u32 count;
	__u32 error;
};

/**
 * struct dmabuf_test_map_move - make the next mappings move the buffer
 * @count: how many mappings move the buffer
 * @fence_ms: as in struct dmabuf_test_move, at least 1
 *
 * GPU drivers do this if their memory is where the importer cannot reach it. The
 * mapping is that of the new memory, which gets its content later. The old memory
 * is taken away from all importers at once.
 */
struct dmabuf_test_map_move {
	__u32 count;
	__u32 fence_ms;
};

#define DMABUF_TEST_TO_BUFFER	0x1	/* mappings for a device that writes to the buffer */
#define DMABUF_TEST_FROM_BUFFER	0x2	/* for one that reads from it */

/**
 * struct dmabuf_test_mislead - make mappings show other memory than mmap() does
 * @every: each piece of so many, the last one of them; 1: all
 * @directions: DMABUF_TEST_TO_BUFFER, DMABUF_TEST_FROM_BUFFER or both; a mapping for
 *	both directions counts as one for each
 *
 * Drivers, IOMMUs and switches have done so. DMA goes to zeroed memory that nobody
 * else has. Live mappings stay as they are.
 */
struct dmabuf_test_mislead {
	__u32 every;
	__u32 directions;
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
 * @dirty: bytes of poisoned memory that were written to later
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
/* Poisons the content for good. Further mappings fail with ENODEV. */
#define DMABUF_TEST_REVOKE	_IO('T', 2)
#define DMABUF_TEST_FAIL_MAP	_IOW('T', 3, struct dmabuf_test_fail_map)
/* Makes each mapping take this many milliseconds, under the reservation lock. */
#define DMABUF_TEST_DELAY_MAP	_IOW('T', 4, __u32)
#define DMABUF_TEST_STATS	_IOR('T', 5, struct dmabuf_test_stats)
#define DMABUF_TEST_MAP_MOVE	_IOW('T', 6, struct dmabuf_test_map_move)
#define DMABUF_TEST_MISLEAD	_IOW('T', 7, struct dmabuf_test_mislead)

#endif /* DMABUF_TEST_H */
