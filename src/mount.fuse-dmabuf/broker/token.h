/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A token as it is requested and as it ends. */
#ifndef TOKEN_H
#define TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/token-protocol.h"
#include "identity/owner.h"

struct inode;

#define TOKEN_BOTH (FUSE_DMABUF_TOKEN_READ | FUSE_DMABUF_TOKEN_WRITE)

/* What a program requests, for which file and which buffer. */
struct token_request {
	uint64_t id;
	struct inode *inode;
	int open_flags;
	uint64_t size;          /* of the dma-buf, in bytes */
	uint32_t direction;     /* FUSE_DMABUF_TOKEN_READ, _WRITE */
	struct owner owner;
	pid_t pid;
	char exporter[33];      /* as long as in the protocol, and a zero byte */
	bool is_logged;         /* the grant and the end of the token are in the log */
};

/* Returns the word for a direction, or for both: "read", "write" or "read-write". */
const char *token_direction_name(uint32_t direction);

/* The end of a token, with the kernel's counters. */
struct token_end {
	uint64_t id;
	uint64_t requests, read_bytes, write_bytes;
	uint32_t reason;        /* FUSE_DMABUF_RELEASE_* */
};

#endif
