/* SPDX-License-Identifier: GPL-2.0-or-later */
/* In the place of kernel-tokens.c: the kernel's part in revoking. */
#ifndef SIMULATED_KERNEL_H
#define SIMULATED_KERNEL_H

#include <stdint.h>

extern struct simulated_kernel {
	int error;                      /* what each revocation fails with */
	unsigned int calls;             /* for one token */
	unsigned int calls_at_once;     /* for those of a node, or all */
	uint64_t last;                  /* the token or node of the last call */
	void (*on_revoke)(uint64_t id); /* called while it is being revoked */
	void (*on_revoke_at_once)(void);
} kernel;

#endif
