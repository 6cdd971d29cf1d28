/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The part of the kernel's FUSE protocol that is about tokens, in the form of <linux/fuse.h>. Each
 * request follows a struct fuse_in_header, whose nodeid is the file's node and whose uid, gid and
 * pid are the caller's.
 */
#ifndef TOKEN_PROTOCOL_H
#define TOKEN_PROTOCOL_H

#include <stdint.h>
#include <sys/ioctl.h>

/* Far above the opcodes of Linux, so that its next ones do not collide. */
#define FUSE_DMABUF_TOKEN_CREATE  2048
#define FUSE_DMABUF_TOKEN_RELEASE 2049

#define FUSE_DMABUF_TOKEN_READ  (1u << 0)  /* file to buffer */
#define FUSE_DMABUF_TOKEN_WRITE (1u << 1)  /* buffer to file */

struct fuse_dmabuf_token_in {
	uint64_t fh;
	uint64_t token;         /* unique in the connection */
	uint64_t size;          /* of the dma-buf, in bytes */
	uint32_t direction;     /* the directions that the open mode allows */
	uint32_t padding;
	char exporter[32];
};

/* The answer to CREATE, unless the answer is an errno. */
struct fuse_dmabuf_token_out {
	uint32_t direction;     /* the granted ones of those requested */
	uint32_t padding;
};

/*
 * The kernel sends one RELEASE for each granted token, before the RELEASE of the file handle. The
 * answer is 0.
 */
struct fuse_dmabuf_token_release_in {
	uint64_t fh;
	uint64_t token;
	uint64_t requests;
	uint64_t read_bytes;
	uint64_t write_bytes;
	uint32_t reason;
	uint32_t padding;
};

#define FUSE_DMABUF_RELEASE_CLOSED  0  /* the last user of the token is gone */
#define FUSE_DMABUF_RELEASE_REVOKED 1  /* the broker has revoked the token */
#define FUSE_DMABUF_RELEASE_FAILED  2  /* granted, but a later step of the registration failed */

/*
 * The argument of FUSE_DEV_IOC_DMABUF_REVOKE, which ends tokens and returns when no DMA of them is
 * in flight.
 */
struct fuse_dmabuf_revoke {
	uint64_t token;         /* for REVOKE_TOKEN, otherwise 0 */
	uint64_t nodeid;        /* for REVOKE_NODE, otherwise 0 */
	uint32_t by;            /* FUSE_DMABUF_REVOKE_* */
	uint32_t count;         /* the answer: tokens that were live; 0 in the request */
};

#define FUSE_DMABUF_REVOKE_ALL   0
#define FUSE_DMABUF_REVOKE_TOKEN 1
#define FUSE_DMABUF_REVOKE_NODE  2

#define FUSE_DEV_IOC_DMABUF_REVOKE _IOWR(229, 64, struct fuse_dmabuf_revoke)

_Static_assert(sizeof(struct fuse_dmabuf_revoke) == 24, "part of the kernel's interface");
_Static_assert(sizeof(struct fuse_dmabuf_token_in) == 64, "part of the kernel's interface");
_Static_assert(sizeof(struct fuse_dmabuf_token_out) == 8, "part of the kernel's interface");
_Static_assert(sizeof(struct fuse_dmabuf_token_release_in) == 48, "part of the kernel's interface");

#endif
