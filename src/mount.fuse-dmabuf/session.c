/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The session: its FUSE features, its mount options, and the order of its beginning and end. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/kernel-tokens.h"
#include "control/control.h"
#include "daemon.h"
#include "identity/privileges.h"
#include "log/log.h"
#include "nodes/passthrough.h"
#include "nodes/source.h"
#include "operations/operations.h"
#include "operations/statx.h"
#include "operations/syncfs.h"
#include "operations/token-requests.h"
#include "session.h"
#include "transport/transport.h"

static struct fuse_session *session;

/* Asks the kernel for a feature of FUSE. The mount works without, and the log names the feature. */
static void request_feature(struct fuse_conn_info *connection, uint64_t capability,
			    const char *name)
{
	if (!fuse_set_feature_flag(connection, capability))
		log_warning("the kernel's FUSE does not have %s", name);
}

static void op_init(void *data, struct fuse_conn_info *connection)
{
	const struct options *options = data;

	passthrough_negotiate(connection, fuse_session_fd(session));
	/*
	 * The file system of the source applies the umask, because a default ACL of a directory
	 * replaces the umask.
	 */
	request_feature(connection, FUSE_CAP_DONT_MASK, "the choice not to apply the umask");
	request_feature(connection, FUSE_CAP_POSIX_ACL, "POSIX ACLs");
	request_feature(connection, FUSE_CAP_PARALLEL_DIROPS, "parallel lookups");
	/*
	 * The file system of the source removes set-ID bits and file capabilities at each write:
	 * backing files are opened as nobody, or, if the kernel has our patches, the rights of
	 * the writer decide. FUSE must not remove them: it goes by cached attributes, and asks in
	 * the name of a caller who need not be the owner. With this flag FUSE also asks for file
	 * capabilities less often. cache_attribute_seconds() says how long FUSE itself caches the
	 * attributes of such files.
	 */
	request_feature(connection, FUSE_CAP_HANDLE_KILLPRIV_V2,
			"the choice to leave set-user-ID bits to the file system below");
	/* Without this flag open() truncates by SETATTR, which removes set-user-ID bits. */
	fuse_unset_feature_flag(connection, FUSE_CAP_ATOMIC_O_TRUNC);
	/* With splice a request stays in a pipe, where answer_request() cannot look at it. */
	fuse_unset_feature_flag(connection, FUSE_CAP_SPLICE_READ);
	/* Token requests are background requests: by default the kernel sends 12 at a time. */
	connection->max_background = TRANSPORT_THREADS_MAX;
	if (!daemon_ready())
		fuse_session_exit(session);
	log_info("%s is mounted, protocol %u.%u", options->source, connection->proto_major,
		 connection->proto_minor);
	if (!kernel_has_tokens())
		log_info("this kernel has no dma-buf tokens for FUSE: "
			 "the mount is an ordinary one");
}

/*
 * Three operations are missing on purpose: locks, because the kernel keeps them for the mount, and
 * a thread that waits for a lock could not serve; access, because the mount has the option
 * default_permissions; and flush, for which see begin_file().
 */
static const struct fuse_lowlevel_ops operations = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.statfs = op_statfs,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.symlink = op_symlink,
	.link = op_link,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.rename = op_rename,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.fsyncdir = op_fsyncdir,
	.releasedir = op_releasedir,
	.open = op_open,
	.create = op_create,
	.tmpfile = op_tmpfile,
	.release = op_release,
	.read = op_read,
	.write = op_write,
	.fsync = op_fsync,
	.fallocate = op_fallocate,
	.lseek = op_lseek,
	.copy_file_range = op_copy_file_range,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.setxattr = op_setxattr,
	.removexattr = op_removexattr,
};

/* Adds "-o OPTION", or nothing if the option is empty. */
static bool add_option(struct fuse_args *args, const char *option)
{
	return !*option || (!fuse_opt_add_arg(args, "-o") && !fuse_opt_add_arg(args, option));
}

/* Adds the source for the mount table. Escaped, because a comma would end the option. */
static bool add_source(struct fuse_args *args, const char *source)
{
	char *text, *escaped = NULL;
	bool added;

	if (asprintf(&text, "fsname=%s", source) < 0)
		return false;
	added = !fuse_opt_add_opt_escaped(&escaped, text) && add_option(args, escaped);
	free(escaped);
	free(text);
	return added;
}

/*
 * A later option overrides an earlier one: the user's options override the defaults, and the
 * restrictions of the source's mount override the user's options.
 */
static bool add_options(struct fuse_args *args, const struct options *options, int source_fd)
{
	char restrictions[64];

	return add_option(args, "default_permissions,allow_other,nosuid,nodev,"
				"subtype=fuse-dmabuf") &&
	       add_source(args, options->source) &&
	       add_option(args, options->log_level == LOG_DEBUG ? "debug" : "") &&
	       add_option(args, options->mount_options ? options->mount_options : "") &&
	       add_option(args, source_restrictions(source_fd, restrictions, sizeof(restrictions)));
}

static bool new_session(const struct options *options, int source_fd)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);

	if (!fuse_opt_add_arg(&args, "mount.fuse-dmabuf") && add_options(&args, options, source_fd))
		session = fuse_session_new(&args, &operations, sizeof(operations), (void *)options);
	fuse_opt_free_args(&args);
	return session;
}

/* Answers a request that libfuse does not know. Returns false if the request is for libfuse. */
static bool answer_request(int device, const void *request, size_t size)
{
	return token_requests_answer(device, request, size) ||
	       statx_answer(device, request, size) || syncfs_answer(device, request, size);
}

/* Serves until the mount ends. Returns the exit code of the program. */
static int serve(void)
{
	const struct transport_server server = {
		.answer = answer_request, .init_flags2 = syncfs_init_flags2(),
	};
	int error;

	if (!transport_begin(session, &server))
		return EXIT_SYSTEM;
	error = transport_run();
	transport_end();
	return error ? EXIT_MOUNT : EXIT_SUCCESS;
}

static bool begin_control(struct control_mount *mount)
{
	int device = fuse_session_fd(session);

	if (!connection_find_number(device, mount->mountpoint, &mount->connection)) {
		log_error("mountpoint %s: cannot find the number of its FUSE connection: %s",
			  mount->mountpoint, strerror(errno));
		return false;
	}
	kernel_tokens_begin(device, mount->connection);
	return control_begin(mount);
}

static int mount_and_serve(const struct options *options, const char *mountpoint)
{
	struct control_mount mount = {
		.source = options->source, .mountpoint = mountpoint,
		.group = options->control_group, .policy = &options->policy,
	};
	int code = EXIT_MOUNT;

	if (fuse_session_mount(session, mountpoint))
		return EXIT_MOUNT;
	if (privileges_drop() && begin_control(&mount)) {
		code = serve();
		control_end();
	}
	passthrough_disconnect();
	fuse_session_unmount(session);
	log_info("unmounted");
	return code;
}

int session_run(const struct options *options, const char *mountpoint, int source_fd)
{
	int code = EXIT_MOUNT;

	if (!new_session(options, source_fd))
		return EXIT_SYSTEM;
	if (fuse_set_signal_handlers(session)) {
		log_error("cannot set signal handlers");
	} else {
		code = mount_and_serve(options, mountpoint);
		fuse_remove_signal_handlers(session);
	}
	fuse_session_destroy(session);
	return code;
}
