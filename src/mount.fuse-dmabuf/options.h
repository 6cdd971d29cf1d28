/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line of a mount(8) helper: SRC MNT [-fnsv] [-t type] [-o options]. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "broker/policy-load.h"
#include "operations/cache.h"

/* The exit codes of mount(8). */
enum {
	EXIT_USAGE = 1,    /* wrong command line or policy, or the user is not root */
	EXIT_SYSTEM = 2,   /* no memory, fork() failed */
	EXIT_MOUNT = 32,   /* the mount failed */
};

struct options {
	const char *source;
	const char *mountpoint;
	bool foreground;
	bool sloppy;            /* mount -s: unknown options are ignored */
	struct policy_options policy;
	gid_t control_group;    /* may use the control socket, as root may; 0: only root */
	enum cache_mode cache;
	bool suid;              /* set-ID bits and file capabilities of programs count */
	int log_level;          /* of syslog */
	char *mount_options;    /* the options for libfuse, separated by commas; NULL: none */
};

enum options_result {
	OPTIONS_MOUNT,
	OPTIONS_DONE,           /* --help or --version was printed */
	OPTIONS_WRONG,          /* the log says what is wrong */
};

/*
 * Parses the command line. The options hold pointers into @argv, whose lists of -o are cut into
 * words. Whatever the result is, the caller frees the options with options_free().
 */
enum options_result options_parse(struct options *options, int argc, char **argv);
void options_free(struct options *options);

#endif
