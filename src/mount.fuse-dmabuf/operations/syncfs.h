/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Answers SYNCFS, which libfuse does not know. A kernel with the patches of fuse-dmabuf sends it
 * for syncfs(2) on the mount.
 */
#ifndef SYNCFS_H
#define SYNCFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* FUSE_HAS_SYNCFS in the flags2 of INIT: the kernel offers SYNCFS, and the server accepts. */
#define SYNCFS_IN_FLAGS2 (1u << (60 - 32))

/*
 * Opens the source's file system, until syncfs_end(). SYNCFS reaches no other file system: the
 * clone that source_open() made has no mounts below the source. If the open fails, the log says
 * why.
 */
void syncfs_begin(int root_fd);
void syncfs_end(void);

/*
 * Returns FUSE_HAS_SYNCFS for the second word of flags in INIT, or 0 if the source could not be
 * opened.
 */
uint32_t syncfs_init_flags2(void);

/*
 * Answers the request when all data has been written, which can take long. Returns false if it is
 * another request.
 */
bool syncfs_answer(int device, const void *request, size_t size);

#endif
