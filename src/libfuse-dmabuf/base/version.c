/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The version of the library. */
#include "fuse-dmabuf.h"

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)

const char *fdmabuf_version(void)
{
	return TEXT(FDMABUF_VERSION_MAJOR) "." TEXT(FDMABUF_VERSION_MINOR) "."
	       TEXT(FDMABUF_VERSION_PATCH);
}
