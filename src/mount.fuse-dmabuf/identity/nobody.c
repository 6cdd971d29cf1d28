/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Acting as nobody: chooses the ids. */
#include "identity/identity.h"
#include "identity/nobody.h"

/* Uid and gid: the same as NFS uses. */
#define NOBODY 65534

/* The ids of nobody, or the server's own (root) where the ids of nobody cannot be used. */
static struct identity nobody;

/*
 * The ids stay those of root on a file system of another machine, which may ask who opens a file,
 * and refuse nobody. They also stay in a user namespace that has no user 65534: the file system
 * does not take the root of such a namespace for root.
 */
void nobody_begin(bool source_is_local)
{
	nobody = (struct identity){ .uid = NOBODY, .gid = NOBODY };
	if (source_is_local && identity_assume(&nobody))
		identity_end();
	else
		nobody = (struct identity){ 0 };
}

bool nobody_assume(uint64_t capabilities)
{
	struct identity identity = nobody;

	identity.capabilities = capabilities;
	return identity_assume(&identity);
}
