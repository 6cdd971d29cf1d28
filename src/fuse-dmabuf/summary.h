/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The summary that "fuse-dmabuf load" prints at its end. */
#ifndef SUMMARY_H
#define SUMMARY_H

#include <stdint.h>

#include "fuse-dmabuf.h"
#include "options.h"

/* What a load did. */
struct load_result {
	uint64_t bytes;		/* read from the file */
	uint64_t tensors;
	double seconds, user_seconds, system_seconds;	/* of the reading alone */
	struct fdmabuf_result range;	/* the path, and why it is not direct */
	struct fdmabuf_counters counters;
};

/*
 * Prints one line, or with --json an object, on standard output. Returns 0, or the exit code after
 * a message.
 */
int print_summary(const struct load_options *options, const struct load_result *result);

#endif
