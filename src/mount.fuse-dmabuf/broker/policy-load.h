/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef POLICY_LOAD_H
#define POLICY_LOAD_H

#include "options.h"
#include "broker/policy.h"

/* The policy by the mount options and, if they name one, the policy file as it is now. NULL: logged. */
struct policy *policy_load(const struct options *options);

/* Reads the file again for the broker. If there is a mistake in it, the old policy stays. */
void policy_reload(const struct options *options);

#endif
