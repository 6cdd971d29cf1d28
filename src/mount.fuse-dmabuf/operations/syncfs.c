/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers SYNCFS by syncfs(2) on the source. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>
#include <unistd.h>

#include "identity/identity.h"
#include "identity/nobody.h"
#include "log/log.h"
#include "operations/syncfs.h"
#include "transport/transport.h"

/*
 * The descriptor stays the same as long as the mount lasts: when data could not be written, the
 * kernel reports the error once to each open descriptor, and never to one that is opened later.
 */
static int source = -1;

void syncfs_begin(int root_fd)
{
	source = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (source < 0)
		log_warning("source: cannot be read: %s: syncfs(2) on the mount writes nothing "
			    "(use fsync(2))", strerror(errno));
}

void syncfs_end(void)
{
	if (source >= 0)
		close(source);
	source = -1;
}

uint32_t syncfs_init_flags2(void)
{
	return source >= 0 ? SYNCFS_IN_FLAGS2 : 0;
}

/*
 * Acts as nobody, without capabilities, because syncfs(2) needs none, and allocates blocks for data
 * that programs have written: see nobody.h. Returns an errno, or 0.
 */
static int sync_source(void)
{
	int error;

	if (!nobody_assume(0))
		return errno;
	error = syncfs(source) ? errno : 0;
	identity_end();
	return error;
}

bool syncfs_answer(int device, const void *request, size_t size)
{
	const struct fuse_in_header *header = request;
	int error;

	if (size < sizeof(*header) || header->opcode != FUSE_SYNCFS)
		return false;
	error = transport_body(header, size, sizeof(struct fuse_syncfs_in)) ?
		sync_source() : EINVAL;
	transport_answer(device, header, error, NULL, 0);
	return true;
}
