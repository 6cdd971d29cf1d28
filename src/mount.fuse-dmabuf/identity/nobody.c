/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "identity/identity.h"
#include "identity/nobody.h"

/* As for NFS. */
#define NOBODY 65534

/* The server's own ids where nobody's cannot be had. */
static struct identity nobody;

/*
 * A file system of another machine may ask who opens a file: there it stays root. So it does in a user namespace
 * that has no such user, and whose root is none for the file system either.
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
