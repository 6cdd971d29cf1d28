/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * identity/ acts as the caller of a request, or as nobody, and knows whose a token is; here: whom a thread acts for. The file system below decides by these ids, groups and capabilities, by what is true at
 * that moment; nothing else of the thread changes, so nobody may signal or renice it who could not before.
 * May call: containers, limits, log.
 */
#ifndef IDENTITY_H
#define IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The bit of a capability in a set of them. */
#define CAPABILITY(number) (1ull << (number))

struct identity {
	uid_t uid;
	gid_t gid;
	const gid_t *groups;            /* supplementary ones */
	size_t group_count;
	uint64_t capabilities;          /* effective ones */
};

/*
 * The calling thread acts for somebody until identity_end(). The server must be able to have the capabilities.
 * Returns false with errno set if the kernel refuses; nothing is to be undone then.
 */
bool identity_assume(const struct identity *identity);

/* The thread has its own ids and capabilities again. Keeps errno. Aborts if the kernel refuses. */
void identity_end(void);

#endif
