/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "descriptors.h"
#include "inode.h"
#include "log.h"
#include "processes.h"

static int proc = -1;

/* Mounted nowhere. */
static int new_proc(void)
{
	int context = fsopen("proc", FSOPEN_CLOEXEC), fd = -1;

	if (context < 0)
		return -1;
	if (!fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		fd = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY);
	close(context);
	return fd;
}

bool processes_begin(void)
{
	proc = new_proc();
	/* A container may not be allowed it. */
	if (proc < 0)
		proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0)
		log_error("/proc: %s", strerror(errno));
	return proc >= 0;
}

void processes_end(void)
{
	close(proc);
}

FILE *process_status(pid_t pid)
{
	FILE *file = NULL;
	char path[24];
	int fd;

	snprintf(path, sizeof(path), "%d/status", pid);
	do {
		fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	} while (fd < 0 && descriptors_made_room());
	if (check_file_limit(fd) >= 0)
		file = fdopen(fd, "r");
	if (fd >= 0 && !file)
		close(fd);
	return file;
}
