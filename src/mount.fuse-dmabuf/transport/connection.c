/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Finds the number of a mount's connection. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "transport/transport.h"

/* Reads the number from /proc/self/fdinfo of the device, which has it since Linux 6.16. */
static bool number_from_fdinfo(int device, unsigned int *number)
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
 * Takes the number from the mount point, for older kernels. The number is wrong if something else
 * was mounted there meanwhile. AT_STATX_DONT_SYNC: the kernel must not ask this server, which does
 * not answer yet.
 */
static bool number_from_mountpoint(const char *mountpoint, unsigned int *number)
{
	struct statx attr;

	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &attr))
		return false;
	*number = attr.stx_dev_minor;
	return true;
}

bool connection_find_number(int device, const char *mountpoint, unsigned int *number)
{
	return number_from_fdinfo(device, number) || number_from_mountpoint(mountpoint, number);
}
