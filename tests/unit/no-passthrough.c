/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For LD_PRELOAD: simulates a kernel that accepts no backing file, so that all data goes through
 * the server, from any source directory.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;
	void *data;

	va_start(arguments, request);
	data = va_arg(arguments, void *);
	va_end(arguments);
	if (request == FUSE_DEV_IOC_BACKING_OPEN) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return (int)syscall(SYS_ioctl, fd, request, data);
}
