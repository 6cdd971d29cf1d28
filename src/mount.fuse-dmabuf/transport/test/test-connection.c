/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of connection.c with a mount that nobody serves yet, as the server finds its own mount when
 * it starts.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "transport/transport.h"

/* Exit status that tells meson that the test was skipped. */
#define SKIPPED 77

static char mountpoint[] = "/tmp/fuse-dmabuf-test-XXXXXX";
static int device;

static unsigned int find_number(void)
{
	unsigned int number = 0;

	CHECK(connection_find_number(device, mountpoint, &number));
	return number;
}

static bool has_number_in_fdinfo(void)
{
	char path[64], text[512] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", device);
	file = fopen(path, "r");
	CHECK(file && fread(text, 1, sizeof(text) - 1, file));
	fclose(file);
	return strstr(text, "fuse_connection:");
}

static void number_is_that_of_the_mount(void)
{
	struct statx attr;

	CHECK(!statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC, STATX_TYPE, &attr));
	CHECK_EQUAL(find_number(), attr.stx_dev_minor);
}

static void number_is_not_that_of_a_mount_on_top(void)
{
	unsigned int number = find_number();

	CHECK(!mount("tmpfs", mountpoint, "tmpfs", 0, NULL));
	if (has_number_in_fdinfo())
		CHECK_EQUAL(find_number(), number);
	CHECK(!umount2(mountpoint, MNT_DETACH));
}

int main(void)
{
	char options[64];

	CHECK(mkdtemp(mountpoint));
	device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", device);
	if (device < 0 || mount("test", mountpoint, "fuse", 0, options)) {
		perror("skipped, no FUSE mount is possible here");
		rmdir(mountpoint);
		return SKIPPED;
	}
	RUN(number_is_that_of_the_mount);
	RUN(number_is_not_that_of_a_mount_on_top);
	CHECK(!umount2(mountpoint, MNT_DETACH));
	close(device);
	CHECK(!rmdir(mountpoint));
	return 0;
}
