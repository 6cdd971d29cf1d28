/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef POLICY_LOAD_H
#define POLICY_LOAD_H

#include "broker/policy.h"

/* What the mount options say of tokens. */
struct policy_options {
	const char *file;               /* of the policy; NULL: none */
	bool is_denied;                 /* tokens=deny */
	bool revoke_on_unlink;
	struct token_count limit;       /* of all together */
	struct token_count user_limit;  /* of each user */
};

/* The policy by the mount options and, if they name one, the policy file as it is now. NULL: logged. */
struct policy *policy_load(const struct policy_options *options);

/* Reads the file again for the broker. If there is a mistake in it, the old policy stays. */
void policy_reload(const struct policy_options *options);

#endif
