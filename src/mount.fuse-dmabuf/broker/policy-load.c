/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The policy at the start and after SIGHUP. */
#include <inttypes.h>
#include <stdlib.h>

#include "broker/broker.h"
#include "broker/policy-file.h"
#include "broker/policy-load.h"
#include "log/log.h"

struct policy *policy_load(const struct policy_options *options)
{
	const struct policy defaults = {
		.deny = options->is_denied, .deny_removed = options->revoke_on_unlink,
		.all = options->limit, .user = options->user_limit,
	};
	struct policy *policy;

	if (options->file)
		return policy_file_read(options->file, &defaults);
	policy = malloc(sizeof(*policy));
	if (policy)
		*policy = defaults;
	else
		log_error("cannot make the policy: out of memory");
	return policy;
}

void policy_reload(const struct policy_options *options)
{
	struct revocation result;
	struct policy *policy;

	if (!options->file) {
		log_warning("SIGHUP reads the policy file again, but there is none "
			    "(mount with policy=FILE)");
		return;
	}
	policy = policy_load(options);
	if (!policy) {
		log_error("the policy stays as it was");
		return;
	}
	result = broker_set_policy(policy);
	log_info("%s is the policy now; %" PRIu64 " tokens were revoked", options->file,
		 result.revoked);
}
