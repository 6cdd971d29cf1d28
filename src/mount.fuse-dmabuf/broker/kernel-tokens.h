/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the server asks the kernel about tokens: to revoke them, and for their counters. */
#ifndef KERNEL_TOKENS_H
#define KERNEL_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Sets the FUSE device of the connection, and the connection's number in
 * /sys/fs/fuse/connections.
 */
void kernel_tokens_begin(int device, unsigned int connection);

/* Returns true if the kernel has the patches, with revocation. */
bool kernel_has_tokens(void);

/*
 * Revoke one token, the tokens of a node, or all tokens; ids that the kernel does not know are
 * ignored. Wait until no DMA of these tokens is in flight, and return 0. Otherwise return an errno:
 * ENOTTY means that this kernel cannot revoke tokens.
 */
int kernel_token_revoke(uint64_t id);
int kernel_tokens_revoke_node(uint64_t nodeid);
int kernel_tokens_revoke_all(void);

/* The kernel's counters of one token. */
struct kernel_counters {
	uint64_t token, requests, read_bytes, write_bytes, peer_bytes, maps, invalidations;
};

/* The counters of all live tokens. */
struct kernel_statistics {
	bool known;                             /* false: no counters, or fusectl is not mounted */
	size_t count;
	struct kernel_counters *tokens;         /* ordered by id */
};

/* Reads the counters, for kernel_statistics_free(). */
void kernel_statistics_read(struct kernel_statistics *statistics);
void kernel_statistics_free(struct kernel_statistics *statistics);

/* Returns the counters of a token, or NULL if the kernel has not told them. */
const struct kernel_counters *kernel_statistics_find(const struct kernel_statistics *statistics,
						     uint64_t token);

/*
 * Parses one line of the kernel's file. Returns false if the line names no token. Ignores words
 * that it does not know: later kernels may add some.
 */
bool kernel_counters_parse(const char *line, struct kernel_counters *counters);

#endif
