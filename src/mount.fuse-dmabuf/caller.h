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

/*
 * What an operation changes: a file or directory, or what has a name in a directory. Capabilities of a user namespace
 * other than the server's count only if owner and group of all of them have ids there; CAP_FOWNER, but for names, if the
 * owners have.
 */
struct target {
	int fd;
	const char *name;       /* NULL: the descriptor's file; what has no such name is nobody's */
};

#define TARGETS(...) \
	(const struct target[]){ __VA_ARGS__ }, sizeof((struct target[]){ __VA_ARGS__ }) / sizeof(struct target)

/*
 * The thread acts as the caller until identity_end(). Where the credentials are not known (a process in a PID namespace
 * that the server does not see, or one that acts for another), there are only the caller's ids, without groups and
 * capabilities. False: see errno, nothing is to be undone.
 */
bool caller_assume(fuse_req_t req, const struct target *targets, size_t count);

/* The same to create something: with the caller's umask, which a default ACL of the directory replaces. */
bool caller_assume_to_create(fuse_req_t req, const struct target *targets, size_t count);

/* The same to change the data of a file: set-user-ID bits stay only for CAP_FSETID of the server's user namespace. */
bool caller_assume_to_write(fuse_req_t req, int fd);

/* Returns true if the caller has a capability in whatever user namespace, or in that of the server. */
bool caller_has(fuse_req_t req, uint64_t capability);
bool caller_is_capable(fuse_req_t req, uint64_t capability);

#endif
