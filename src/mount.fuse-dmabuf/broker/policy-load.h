/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes the policy of a mount, from the mount options and the policy file. */
#ifndef POLICY_LOAD_H
#define POLICY_LOAD_H

#include "broker/policy.h"

/* The mount options about tokens. */
struct policy_options {
	const char *file;               /* policy file, or NULL */
	bool is_denied;                 /* tokens=deny */
	bool revoke_on_unlink;
	struct token_count limit;       /* of all users together */
	struct token_count user_limit;  /* of each user */
};

/*
 * Returns the policy of the mount options and, if they name a policy file, of that file as it is
 * now, for policy_free(). Returns NULL if it cannot be made; the log says why.
 */
struct policy *policy_load(const struct policy_options *options);

/*
 * Reads the policy file again and gives the policy to the broker. The present policy stays if there
 * is a mistake in the file.
 */
void policy_reload(const struct policy_options *options);

#endif
