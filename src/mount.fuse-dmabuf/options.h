/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line of a mount(8) helper: SRC MNT [-sfnv] [-o options]. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "broker/policy-load.h"
#include "operations/cache.h"

/* Exit codes that mount(8) knows. */
enum {
	EXIT_USAGE = 1,    /* wrong invocation, or not allowed */
	EXIT_SYSTEM = 2,   /* out of memory, cannot fork */
	EXIT_MOUNT = 32,   /* the mount failed */
};

struct options {
	const char *source;
	const char *mountpoint;
	bool foreground;
	bool sloppy;            /* mount -s: unknown options are no error */
	struct policy_options policy;
	gid_t control_group;    /* may use the control socket, beside root; 0: nobody */
	enum cache_mode cache;
	bool suid;              /* programs run with the rights that their files give */
	int log_level;
	char *mount_options;    /* what goes on to libfuse, as one list */
};

enum options_result {
	OPTIONS_MOUNT,
	OPTIONS_DONE,           /* --help or --version was answered */
	OPTIONS_WRONG,          /* one line of explanation was written to stderr */
};

enum options_result options_parse(struct options *options, int argc, char **argv);
void options_free(struct options *options);

#endif
