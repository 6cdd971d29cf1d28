/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's interface of FUSE over io_uring, which <linux/fuse.h> has since Linux 6.14; the
 * installed one may be older. Linux explains it in
 * Documentation/filesystems/fuse/fuse-io-uring.rst.
 */
#ifndef URING_PROTOCOL_H
#define URING_PROTOCOL_H

#include <stdint.h>

/* Flag of flags2 in INIT. */
#define URING_IN_FLAGS2 (1u << (41 - 32))

enum uring_command {
	URING_REGISTER = 1,
	URING_COMMIT_AND_FETCH = 2,
};

/* What the kernel and the server exchange in an entry, beside the payload. */
struct uring_header {
	char in_out[128];       /* struct fuse_in_header, or struct fuse_out_header */
	char operation[128];    /* the first argument of the request */
	struct {
		uint64_t flags;
		uint64_t commit_id;
		uint32_t payload_size;
		uint32_t padding;
		uint64_t reserved;
	} entry;
};

/* The command, in the second half of the submission. */
struct uring_request {
	uint64_t flags;
	uint64_t commit_id;
	uint16_t queue;
	uint8_t padding[6];
};

_Static_assert(sizeof(struct uring_header) == 288, "part of the kernel's interface");
_Static_assert(sizeof(struct uring_request) == 24, "part of the kernel's interface");

#endif
