/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Descriptors that close themselves. */
#ifndef FDMABUF_DESCRIPTOR_H
#define FDMABUF_DESCRIPTOR_H

#include <unistd.h>

/* For __attribute__((cleanup(close_fd))): closes a descriptor when its variable ends. */
static inline void close_fd(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#endif
