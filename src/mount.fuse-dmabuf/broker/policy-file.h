/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads a policy file, whose format is in fuse-dmabuf-policy(5). */
#ifndef POLICY_FILE_H
#define POLICY_FILE_H

#include "broker/policy.h"

/*
 * Returns the policy that a file describes, for policy_free(). A setting that the file does not
 * have is as in @defaults. Returns NULL if there is a mistake: the log has the file, the line and
 * the reason.
 */
struct policy *policy_file_read(const char *file, const struct policy *defaults);

#endif
