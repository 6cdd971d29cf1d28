/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Replaces the revoking functions of kernel-tokens.c: tests decide what the kernel answers. */
#ifndef SIMULATED_KERNEL_H
#define SIMULATED_KERNEL_H

#include <stdint.h>

extern struct simulated_kernel {
	int error;                      /* the result of each call: an errno or 0 */
	unsigned int calls;             /* calls that revoke one token */
	unsigned int bulk_calls;        /* calls that revoke the tokens of a node, or all */
	uint64_t last;                  /* the token or node of the last call */
	void (*on_revoke)(uint64_t id); /* called while the kernel revokes the token */
	void (*on_bulk_revoke)(void);
} kernel;

#endif
