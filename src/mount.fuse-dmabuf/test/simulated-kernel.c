/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "kernel-tokens.h"
#include "simulated-kernel.h"

struct simulated_kernel kernel;

int kernel_token_revoke(uint64_t id, bool *ended)
{
	__atomic_add_fetch(&kernel.calls, 1, __ATOMIC_RELAXED);
	kernel.last = id;
	if (kernel.on_revoke)
		kernel.on_revoke(id);
	*ended = !kernel.error && !kernel.late;
	if (kernel.late)
		kernel.late--;
	return kernel.error;
}
