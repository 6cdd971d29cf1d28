/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * identity/ lets a thread act as the caller of a request, or as nobody, and reads the credentials
 * of the owners of tokens. This header sets the ids, groups and capabilities of a thread.
 * May call: containers, limits, log.
 *
 * The file system below decides by these ids, groups and capabilities, by its own state of that
 * moment. Nothing else of the thread changes, so no user may signal or renice the thread who could
 * not do so before.
 */
#ifndef IDENTITY_H
#define IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The bit of a capability in a set of capabilities. */
#define CAPABILITY(number) (1ull << (number))

struct identity {
	uid_t uid;
	gid_t gid;
	const gid_t *groups;            /* supplementary */
	size_t group_count;
	uint64_t capabilities;          /* effective */
};

/*
 * Gives the calling thread an identity until identity_end(). Capabilities that are not permitted
 * to the server are left out. Returns false with errno set if the kernel refuses; nothing is to be
 * undone then.
 */
bool identity_assume(const struct identity *identity);

/*
 * Gives the calling thread its own ids and capabilities again. Keeps errno. Aborts if the kernel
 * refuses.
 */
void identity_end(void);

#endif
