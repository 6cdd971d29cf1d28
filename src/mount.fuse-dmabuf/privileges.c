/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"
#include "privileges.h"

/*
 * CAP_SYS_RESOURCE is left out on purpose: data of passthrough files is written with the server's
 * capabilities, and with this one users would write past their disk quota.
 */
static const int kept[] = {
	CAP_CHOWN,           /* setattr */
	CAP_DAC_OVERRIDE,    /* the kernel has checked the caller (default_permissions) */
	CAP_DAC_READ_SEARCH, /* the same, and linkat() of a descriptor, and file handles */
	CAP_FOWNER,          /* setattr and xattrs of files of others */
	CAP_FSETID,          /* set-group-ID bits, where the kernel let the caller set them */
	CAP_SETUID,          /* files are created with the caller's ids */
	CAP_SETGID,
	CAP_MKNOD,
	CAP_SETFCAP,         /* security.capability */
	CAP_SYS_ADMIN,       /* mount, umount, backing files, trusted xattrs */
};

static bool set_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
		data[CAP_TO_INDEX(kept[i])].effective |= CAP_TO_MASK(kept[i]);
		data[CAP_TO_INDEX(kept[i])].permitted |= CAP_TO_MASK(kept[i]);
	}
	return !syscall(SYS_capset, &header, data);
}

bool privileges_drop(void)
{
	/*
	 * NO_SETUID_FIXUP: the server keeps its capabilities while it has the file system ids of a caller.
	 * Whether the caller may create something was the kernel's decision already.
	 */
	if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || !set_capabilities()) {
		log_error("cannot give up privileges: %s (start it as root, with all of root's capabilities)",
			  strerror(errno));
		return false;
	}
	return true;
}

static void set_effective(bool all)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data))
		abort();
	for (int i = 0; i < 2; i++)
		data[i].effective = all ? data[i].permitted : 0;
	if (syscall(SYS_capset, &header, data))
		abort();
}

void privileges_suspend(void)
{
	set_effective(false);
}

void privileges_resume(void)
{
	set_effective(true);
}

static rlim_t system_file_limit(void)
{
	unsigned long limit = 0;
	FILE *file = fopen("/proc/sys/fs/nr_open", "re");

	if (file) {
		if (fscanf(file, "%lu", &limit) != 1)
			limit = 0;
		fclose(file);
	}
	return limit;
}

static bool set_limit(rlim_t soft, rlim_t hard)
{
	return !setrlimit(RLIMIT_NOFILE, &(struct rlimit){ .rlim_cur = soft, .rlim_max = hard });
}

/* Where the hard limit must not be raised, what it allows is taken. inode-open.c explains when it is reached. */
size_t privileges_raise_file_limit(void)
{
	struct rlimit limit = { 0 };
	rlim_t wanted = system_file_limit();

	getrlimit(RLIMIT_NOFILE, &limit);
	if (wanted > limit.rlim_max && set_limit(wanted, wanted))
		return wanted;
	return set_limit(limit.rlim_max, limit.rlim_max) ? limit.rlim_max : limit.rlim_cur;
}
