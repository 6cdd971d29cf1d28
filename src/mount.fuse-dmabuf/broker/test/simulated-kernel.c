/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A kernel that revokes nothing, but counts the calls. */
#include "broker/kernel-tokens.h"
#include "broker/test/simulated-kernel.h"

struct simulated_kernel kernel;

int kernel_token_revoke(uint64_t id)
{
	__atomic_add_fetch(&kernel.calls, 1, __ATOMIC_RELAXED);
	kernel.last = id;
	if (kernel.on_revoke)
		kernel.on_revoke(id);
	return kernel.error;
}

int kernel_tokens_revoke_node(uint64_t nodeid)
{
	kernel.last = nodeid;
	return kernel_tokens_revoke_all();
}

int kernel_tokens_revoke_all(void)
{
	__atomic_add_fetch(&kernel.bulk_calls, 1, __ATOMIC_RELAXED);
	if (kernel.on_bulk_revoke)
		kernel.on_bulk_revoke();
	return kernel.error;
}
