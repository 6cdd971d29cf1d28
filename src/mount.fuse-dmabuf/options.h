/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line of a mount(8) helper: SRC MNT [-sfnv] [-o options]. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "broker/books.h"

/* Exit codes that mount(8) knows. */
enum {
	EXIT_USAGE = 1,    /* wrong invocation, or not allowed */
	EXIT_SYSTEM = 2,   /* out of memory, cannot fork */
	EXIT_MOUNT = 32,   /* the mount failed */
};

/* For how long the kernel may believe what it was told of names and attributes. */
enum cache_mode {
	CACHE_AUTO,             /* a second */
	CACHE_NONE,
	CACHE_ALWAYS,           /* nobody changes the source directory itself */
};

struct options {
	const char *source;
	const char *mountpoint;
	bool foreground;
	bool sloppy;            /* mount -s: unknown options are no error */
	bool tokens_denied;
	struct token_count limit, user_limit;   /* of all together, and of each user */
	const char *policy_file;
	bool revoke_on_unlink;
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
