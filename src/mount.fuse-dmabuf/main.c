/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mount.fuse-dmabuf: passes a directory through by FUSE, and is the broker of the tokens of its
 * files. This file starts and ends the parts of the server in order.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/policy-load.h"
#include "broker/revoke-on-unlink.h"
#include "common/fuse-connection.h"
#include "common/streams.h"
#include "daemon.h"
#include "identity/nobody.h"
#include "identity/processes.h"
#include "limits/descriptor-limit.h"
#include "limits/open-quota.h"
#include "log/log.h"
#include "log/stderr-log.h"
#include "nodes/descriptors.h"
#include "nodes/inode.h"
#include "nodes/source.h"
#include "operations/cache.h"
#include "operations/syncfs.h"
#include "options.h"
#include "session.h"

/*
 * Returns false with errno set if @path cannot be reached or is no directory. The type is asked
 * anew (AT_STATX_FORCE_SYNC): cached attributes may come from a FUSE server that has ended. The
 * lookup triggers no automount (AT_NO_AUTOMOUNT): systemd would mount the directory a second time.
 */
static bool is_directory(const char *path)
{
	struct statx attr;

	if (statx(AT_FDCWD, path, AT_NO_AUTOMOUNT | AT_STATX_FORCE_SYNC, STATX_TYPE, &attr))
		return false;
	errno = ENOTDIR;
	return S_ISDIR(attr.stx_mode);
}

static const char *mountpoint_error_text(int error)
{
	return fuse_connection_has_ended(error) ? "its FUSE server has ended: umount it first" :
						  strerror(error);
}

/*
 * Stores the absolute path of the mountpoint in @path, because the daemon leaves the working
 * directory. Returns false if the mountpoint is no directory; the log says why.
 */
static bool check_mountpoint(const char *given, char path[PATH_MAX])
{
	if (is_directory(given) && realpath(given, path))
		return true;
	log_error("mountpoint %s: %s", given, mountpoint_error_text(errno));
	return false;
}

/* Mounts and serves until the end of the mount. Returns the exit code of the program. */
static int mount_source(const struct options *options)
{
	char mountpoint[PATH_MAX];
	struct policy *policy;
	int source_fd, code;
	size_t limit;

	if (!check_mountpoint(options->mountpoint, mountpoint))
		return EXIT_MOUNT;
	policy = policy_load(&options->policy);
	if (!policy)
		return EXIT_USAGE;
	source_fd = source_open(options->source);
	if (source_fd < 0)
		return EXIT_MOUNT;
	if (options->foreground)
		stderr_log_set_nonblocking();
	else if (!daemon_begin())
		return EXIT_SYSTEM;
	limit = descriptor_limit_raise();
	descriptors_begin(limit);
	open_quota_begin(limit,
			 (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
	nobody_begin(source_is_local(source_fd));
	if (!processes_begin() || !inodes_begin(source_fd))
		return EXIT_SYSTEM;
	syncfs_begin(source_fd);
	broker_begin(policy);
	cache_begin(options->cache, options->suid);
	if (options->policy.revoke_on_unlink)
		revoke_on_unlink_enable();
	code = session_run(options, mountpoint, source_fd);
	broker_end();
	syncfs_end();
	inodes_end();
	processes_end();
	return code;
}

int main(int argc, char **argv)
{
	struct options options;
	int code = EXIT_SUCCESS;

	/* Files that the starting program left open must not stay open while the daemon lives. */
	close_range(STDERR_FILENO + 1, ~0u, 0);
	open_missing_streams(O_RDWR);
	log_begin();
	switch (options_parse(&options, argc, argv)) {
	case OPTIONS_DONE:
		break;
	case OPTIONS_WRONG:
		code = EXIT_USAGE;
		break;
	case OPTIONS_MOUNT:
		log_set_level(options.log_level);
		if (geteuid()) {
			log_error("only root can mount");
			code = EXIT_USAGE;
		} else {
			code = mount_source(&options);
		}
		break;
	}
	options_free(&options);
	return code;
}
