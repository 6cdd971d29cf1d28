/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Acting as the caller of a request. The kernel has checked the caller's rights by owners and modes
 * that it remembers. An operation that changes anything is done with the caller's ids, groups and
 * capabilities, so that the file system below decides by the owners and modes of that moment.
 */
#ifndef CALLER_H
#define CALLER_H

#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "identity/processes.h"

/*
 * An object that an operation changes. Capabilities of a user namespace other than the server's
 * count only for objects whose owner and group have ids in that namespace; which capabilities count
 * depends on the kind of the object.
 */
struct target {
	enum {
		TARGET_FILE,            /* the descriptor's file, of any type */
		TARGET_DIRECTORY,       /* the names in the descriptor's directory */
		TARGET_NAME,            /* the file of a name in a directory, if any */
	} kind;
	int fd;
	const char *name;               /* of TARGET_NAME, else NULL */
};

/* An array of targets and its length, as the last two arguments of caller_begin(). */
#define TARGETS(array) array, sizeof(array) / sizeof(*(array))

/* A caller for whom a thread acts. */
struct caller {
	fuse_req_t req;
	const struct target *targets;
	size_t count;
	struct process process;
	uint64_t capabilities;  /* of the caller, that the thread has now */
	bool has_all;           /* the caller has no further capability that the thread could get */
};

/*
 * Makes the thread act as the caller of @req, first without capabilities: most operations need
 * none, and to find out for which files they count, more of /proc must be read. The thread gets
 * only the caller's ids, without groups and capabilities, if the credentials are not known: the
 * process is in a PID namespace that the server does not see, or acts for another process. Returns
 * false with errno set on failure; nothing is to be undone then. @targets must remain valid until
 * caller_should_retry() has returned false.
 */
bool caller_begin(struct caller *caller, fuse_req_t req, const struct target *targets,
		  size_t count);

/*
 * Does the same, but with the caller's capabilities from the first try: for operations that succeed
 * without capabilities, but with another result than with them.
 */
bool caller_begin_with_all(struct caller *caller, fuse_req_t req, const struct target *targets,
			   size_t count);

/*
 * Does the same as caller_begin_with_all(), to change the data of a file: set-user-ID bits stay
 * only if the caller has CAP_FSETID in the server's user namespace.
 */
bool caller_begin_to_write(struct caller *caller, fuse_req_t req, const struct target *target);

/*
 * Does the same as caller_begin(), to create something with @mode. The caller's umask applies, or
 * the default ACL of @directory if there is one.
 */
bool caller_begin_to_create(struct caller *caller, fuse_req_t req, const struct target *directory,
			    mode_t mode);

/*
 * To be called after each try, with its errno or 0. Returns true if the try was refused and the
 * caller has capabilities that may change the result: the thread has them now, and the caller of
 * this function tries again. Otherwise returns false, and the thread has the server's own ids and
 * capabilities again. Keeps errno.
 */
bool caller_should_retry(struct caller *caller, int error);

/* Returns true if the caller has a capability in the server's user namespace. */
bool caller_is_capable(fuse_req_t req, uint64_t capability);

#endif
