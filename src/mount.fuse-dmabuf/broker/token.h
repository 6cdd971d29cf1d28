/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is asked for, granted and ended. */
#ifndef TOKEN_H
#define TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/token-protocol.h"
#include "identity/owner.h"

struct inode;

#define TOKEN_BOTH (FUSE_DMABUF_TOKEN_READ | FUSE_DMABUF_TOKEN_WRITE)

/* Who asks for what. */
struct token_request {
	uint64_t id;
	struct inode *inode;
	int open_flags;
	uint64_t size;
	uint32_t direction;     /* FUSE_DMABUF_TOKEN_READ, _WRITE */
	struct owner owner;
	pid_t pid;
	char exporter[33];
	bool is_logged;           /* its grant and end are in the log */
};

/* Returns the word for a direction, or both: "read", "write" or "read-write". */
const char *token_direction_name(uint32_t direction);

/* What became of a token, by the kernel's counters. */
struct token_end {
	uint64_t id;
	uint64_t requests, read_bytes, write_bytes;
	uint32_t reason;
};

#endif
