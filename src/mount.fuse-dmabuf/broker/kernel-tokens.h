/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the server asks the kernel about tokens. */
#ifndef KERNEL_TOKENS_H
#define KERNEL_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The device of the connection, and its number in /sys/fs/fuse/connections. */
void kernel_tokens_begin(int device, unsigned int connection);

/* Whether it has the patches. */
bool kernel_has_tokens(void);

/*
 * Ends a token, those of a node, or all, if the kernel knows of them. 0: no DMA of theirs is in flight. Or an
 * errno; ENOTTY: this kernel cannot.
 */
int kernel_token_revoke(uint64_t id);
int kernel_tokens_revoke_node(uint64_t nodeid);
int kernel_tokens_revoke_all(void);

struct kernel_counters {
	uint64_t token, requests, read_bytes, write_bytes, peer_bytes, maps, invalidations;
};

/* Of all live tokens. Known is false where the kernel does not tell, or fusectl is not mounted. */
struct kernel_statistics {
	bool known;
	size_t count;
	struct kernel_counters *tokens;         /* by id */
};

void kernel_statistics_read(struct kernel_statistics *statistics);
void kernel_statistics_free(struct kernel_statistics *statistics);

/* NULL: not known. */
const struct kernel_counters *kernel_statistics_find(const struct kernel_statistics *statistics, uint64_t token);

/* One line of the kernel's file. False: it has no token. Unknown words are for later kernels. */
bool kernel_counters_parse(const char *line, struct kernel_counters *counters);

#endif
