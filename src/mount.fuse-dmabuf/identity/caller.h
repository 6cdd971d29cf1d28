/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Acting as the caller of a request. The kernel has checked what the caller may by owners and modes that it remembers;
 * what changes anything is done with the caller's ids, groups and capabilities, so that the file system below decides
 * by what is true now.
 */
#ifndef CALLER_H
#define CALLER_H

#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "identity/processes.h"

/*
 * What an operation changes. Capabilities of a user namespace other than the server's count only for what has an owner
 * and a group with ids there, and which they are differs.
 */
struct target {
	enum {
		TARGET_FILE,            /* the descriptor's, of any type */
		TARGET_DIRECTORY,       /* names in it */
		TARGET_NAME,            /* what has the name in the directory; there need not be anything */
	} kind;
	int fd;
	const char *name;               /* of TARGET_NAME */
};

/* How many an array has, behind it. */
#define TARGETS(array) array, sizeof(array) / sizeof(*(array))

/* A caller for whom a thread acts. */
struct caller {
	fuse_req_t req;
	const struct target *targets;
	size_t count;
	struct process process;
	uint64_t capabilities;  /* that the thread has now */
	bool has_all;           /* there are no more of them */
};

/*
 * The thread acts as the caller, first without capabilities: most that is done needs none, and what they count for has
 * to be looked up. Where the credentials are not known (a process in a PID namespace that the server does not see, or
 * one that acts for another), there are only the caller's ids, without groups and capabilities. False: see errno,
 * nothing is to be undone. The targets must last until caller_should_retry() has returned false.
 */
bool caller_begin(struct caller *caller, fuse_req_t req, const struct target *targets, size_t count);

/* The same with the caller's capabilities at once, for what they make a difference to that is allowed without, too. */
bool caller_begin_with_all(struct caller *caller, fuse_req_t req, const struct target *targets, size_t count);

/* The same to change the data of a file: set-user-ID bits stay only for CAP_FSETID of the server's user namespace. */
bool caller_begin_to_write(struct caller *caller, fuse_req_t req, const struct target *target);

/* The same to create something with that mode, and with the caller's umask, or what a default ACL of the directory says. */
bool caller_begin_to_create(struct caller *caller, fuse_req_t req, const struct target *directory, mode_t mode);

/*
 * After each try, with its errno, or 0. Returns true if it was refused and the caller has capabilities that may change
 * that: the thread has them, and tries again. Else the thread is the server's own again; errno is kept.
 */
bool caller_should_retry(struct caller *caller, int error);

/* Returns true if the caller has a capability in the server's user namespace. */
bool caller_is_capable(fuse_req_t req, uint64_t capability);

#endif
