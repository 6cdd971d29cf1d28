/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fuse-dmabuf-policy(5) */
#ifndef POLICY_FILE_H
#define POLICY_FILE_H

#include "broker/policy.h"

/*
 * The policy that a file describes, for policy_free(); what it does not set is as in the defaults. NULL: the
 * file, the line and the reason were logged.
 */
struct policy *policy_file_read(const char *file, const struct policy *defaults);

#endif
