/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes policies without rules for tests. */
#ifndef TEST_POLICY_H
#define TEST_POLICY_H

#include <stdlib.h>

#include "broker/policy.h"
#include "check.h"

/* Returns a policy that limits only the bytes of all users together, for policy_free(). */
static inline struct policy *test_policy(bool deny, uint64_t max_bytes)
{
	struct policy *policy = malloc(sizeof(*policy));

	CHECK(policy);
	*policy = (struct policy){
		.deny = deny, .all = { .tokens = UINT64_MAX, .bytes = max_bytes },
		.user = { UINT64_MAX, UINT64_MAX },
	};
	return policy;
}

#endif
