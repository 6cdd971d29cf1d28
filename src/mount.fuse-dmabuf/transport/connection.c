/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "transport/transport.h"

/* Since Linux 6.16. */
static bool kernel_tells(int device, unsigned int *number)
{
	char path[64], *line = NULL;
	size_t room = 0;
	bool found = false;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", device);
	file = fopen(path, "re");
	if (!file)
		return false;
	while (!found && getline(&line, &room, file) > 0)
		found = sscanf(line, "fuse_connection: %u", number) == 1;
	free(line);
	fclose(file);
	return found;
}

/*
 * The path may lead to something else that was mounted there meanwhile. What the kernel knows of it is enough:
 * this server does not answer yet.
 */
static bool mount_tells(const char *mountpoint, unsigned int *number)
{
	struct statx attr;

	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &attr))
		return false;
	*number = attr.stx_dev_minor;
	return true;
}

bool connection_number(int device, const char *mountpoint, unsigned int *number)
{
	return kernel_tells(device, number) || mount_tells(mountpoint, number);
}
