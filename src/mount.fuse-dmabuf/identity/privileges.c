/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Capabilities of the server and its threads: which are kept, and which are effective. */
#include <errno.h>
#include <linux/securebits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "identity/privileges.h"
#include "log/log.h"

/*
 * The server's own capabilities. By itself the server reads the source for all users (the kernel
 * checks who may see it), opens files by handles, acts for callers, mounts, and registers backing
 * files. It changes no file by itself.
 */
#define OWN_CAPABILITIES \
	(CAPABILITY(CAP_DAC_OVERRIDE) | CAPABILITY(CAP_DAC_READ_SEARCH) | CAPABILITY(CAP_SETGID) | \
	 CAPABILITY(CAP_SETUID) | CAPABILITY(CAP_SYS_ADMIN))

/*
 * The server also starts without this capability. It then serves root like other users at quotas
 * and reserved blocks.
 */
#define OPTIONAL_CAPABILITIES CAPABILITY(CAP_SYS_RESOURCE)

/* The sets of this thread: read once, because only this file changes them. */
static _Thread_local struct {
	bool known;
	uint64_t effective, permitted;
} sets;

static bool read_sets(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (sets.known)
		return true;
	if (syscall(SYS_capget, &header, data))
		return false;
	sets.effective = data[0].effective | (uint64_t)data[1].effective << 32;
	sets.permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	return sets.known = true;
}

/* The inheritable set becomes empty: a program that the server started would inherit nothing. */
static bool write_sets(uint64_t effective, uint64_t permitted)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = (uint32_t)effective, .permitted = (uint32_t)permitted },
		{ .effective = (uint32_t)(effective >> 32),
		  .permitted = (uint32_t)(permitted >> 32) },
	};

	if (syscall(SYS_capset, &header, data))
		return false;
	sets.effective = effective;
	sets.permitted = permitted;
	return true;
}

static bool keep_only_needed(void)
{
	uint64_t needed = OWN_CAPABILITIES | PRIVILEGES_OF_CALLERS;

	if (!read_sets())
		return false;
	if (needed & ~sets.permitted & ~OPTIONAL_CAPABILITIES) {
		errno = EPERM;
		return false;
	}
	return write_sets(OWN_CAPABILITIES, needed & sets.permitted);
}

bool privileges_drop(void)
{
	/* With NO_SETUID_FIXUP the file system ids of a thread do not change its capabilities. */
	if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || !keep_only_needed()) {
		log_error("cannot give up privileges: %s (start the server as root, "
			  "with all of root's capabilities)", strerror(errno));
		return false;
	}
	return true;
}

uint64_t privileges_effective(void)
{
	if (!read_sets())
		abort();
	return sets.effective;
}

bool privileges_set_effective(uint64_t capabilities)
{
	if (!read_sets())
		return false;
	capabilities &= sets.permitted;
	return capabilities == sets.effective || write_sets(capabilities, sets.permitted);
}

void privileges_suspend(void)
{
	if (!privileges_set_effective(0))
		abort();
}

void privileges_resume(void)
{
	if (!privileges_set_effective(OWN_CAPABILITIES))
		abort();
}
