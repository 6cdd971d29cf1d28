/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Standard streams that are missing. */
#include <fcntl.h>
#include <unistd.h>

#include "common/streams.h"

void open_missing_streams(int flags)
{
	int fd;

	do {
		fd = open("/dev/null", flags);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}
