/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How many descriptors the server may have, and what to do when there are no more. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>

#include "limits/descriptor-limit.h"
#include "log/log.h"

static bool (*close_reserve)(void);

/* Returns fs.nr_open, the most that a limit of descriptors can be, or 0 if it cannot be read. */
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

/* Where the server may not raise the hard limit, it takes what the hard limit allows. */
size_t descriptor_limit_raise(void)
{
	struct rlimit limit = { 0 };
	rlim_t wanted = system_file_limit();

	getrlimit(RLIMIT_NOFILE, &limit);
	if (wanted > limit.rlim_max && set_limit(wanted, wanted))
		return wanted;
	return set_limit(limit.rlim_max, limit.rlim_max) ? limit.rlim_max : limit.rlim_cur;
}

void descriptor_limit_set_reserve(bool (*close_some)(void))
{
	close_reserve = close_some;
}

bool may_open_again(void)
{
	int saved = errno;
	bool closed = (saved == EMFILE || saved == ENFILE) && close_reserve && close_reserve();

	errno = saved;
	return closed;
}

static void explain_file_limit(void)
{
	static atomic_llong next;
	struct rlimit limit = { 0 };

	/* Every further request would repeat the message. */
	if (!log_is_due(&next))
		return;
	getrlimit(RLIMIT_NOFILE, &limit);
	log_error("%llu descriptors are not enough for the files in use: requests fail with ENFILE "
		  "(raise fs.nr_open and fs.file-max, then mount again)",
		  (unsigned long long)limit.rlim_cur);
}

int check_file_limit(int fd)
{
	if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
		explain_file_limit();
		errno = ENFILE;
	}
	return fd;
}
