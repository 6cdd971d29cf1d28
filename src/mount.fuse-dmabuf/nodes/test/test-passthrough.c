/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of what the log says when the kernel refuses a backing file. A wrapper of ioctl() plays the
 * kernel.
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "log/log.h"
#include "log/test/test-said.h"
#include "nodes/passthrough.h"
#include "nodes/test/test-node.h"

int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

static int refusal;     /* the errno with which ioctl() fails */
static time_t seconds = 1000;

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	(void)fd;
	(void)request;
	errno = refusal;
	return -1;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
	(void)clock;
	*now = (struct timespec){ .tv_sec = seconds };
	return 0;
}

/* Returns what the log says when a file is opened and the kernel refuses it as backing file. */
static const char *said_of(int error)
{
	struct inode *inode = node_lookup("file");
	int backing_id;

	refusal = error;
	said_begin();
	CHECK(passthrough_begin(inode, false, &backing_id));
	CHECK_EQUAL(backing_id, 0);
	passthrough_end(inode);
	inode_forget(inode, 1);
	node_remove("file");
	return said_end();
}

static void each_cause_is_said(void)
{
	CHECK(strstr(said_of(ELOOP), "no passthrough for some or all files") &&
	      strstr(said_of(ENOMEM), "Cannot allocate memory"));
	CHECK(strstr(said_of(ENOSPC), "No space left on device"));
	CHECK(strstr(said_of(EOPNOTSUPP), "Operation not supported"));
}

static void root_of_a_user_namespace_is_told_the_cure(void)
{
	CHECK(strstr(said_of(EPERM),
		     "Operation not permitted (start the server in the initial user namespace"));
}

static void what_passes_is_said_again_once_a_minute(void)
{
	CHECK(!*said_of(ENOMEM) && !*said_of(ENOSPC));
	seconds += 60;
	CHECK(*said_of(ENOMEM) && *said_of(ENOSPC));
	CHECK(!*said_of(ENOMEM) && !*said_of(ENOSPC));
}

static void what_lasts_is_said_once(void)
{
	seconds += 1000000;
	CHECK(!*said_of(ELOOP) && !*said_of(EOPNOTSUPP) && !*said_of(EPERM));
}

static void unheard_of_error_is_said_too(void)
{
	CHECK(strstr(said_of(4000), "4000"));
}

int main(void)
{
	struct fuse_conn_info connection = { .capable = FUSE_CAP_PASSTHROUGH,
					     .capable_ext = FUSE_CAP_PASSTHROUGH };

	nodes_begin();
	passthrough_negotiate(&connection, 0);
	RUN(each_cause_is_said);
	RUN(root_of_a_user_namespace_is_told_the_cure);
	RUN(what_passes_is_said_again_once_a_minute);
	RUN(what_lasts_is_said_once);
	RUN(unheard_of_error_is_said_too);
	nodes_end();
	return 0;
}
