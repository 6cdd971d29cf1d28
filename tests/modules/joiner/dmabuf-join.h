/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/* /dev/dmabuf-join: one dma-buf that consists of two others. */
#ifndef DMABUF_JOIN_H
#define DMABUF_JOIN_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct dmabuf_join - what to join
 * @parts: dma-bufs, in the order in which their memory comes. They must not move.
 *	The CPU accesses the memory through them, not through the joined one.
 */
struct dmabuf_join {
	__s32 parts[2];
};

/* Returns the descriptor of a dma-buf. */
#define DMABUF_JOIN	_IOW('T', 16, struct dmabuf_join)

#endif /* DMABUF_JOIN_H */
