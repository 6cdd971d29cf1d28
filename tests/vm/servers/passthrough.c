/*
 * A FUSE server that knows nothing of tokens: with libfuse, serves one file with passthrough.
 * Usage: passthrough FILE MOUNTPOINT. The server daemonizes when the mount is ready, and ends with
 * the mount.
 */
#define FUSE_USE_VERSION 317
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NODE 2		/* node id of the file; that of the root directory is 1 */

static const char *path, *name;

static int attributes(fuse_ino_t ino, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	if (ino == NODE && stat(path, st) < 0)
		return errno;
	if (ino != NODE)
		st->st_mode = S_IFDIR | 0755;
	st->st_ino = ino;
	return 0;
}

static void serve_init(void *data, struct fuse_conn_info *conn)
{
	(void)data;
	if (!fuse_set_feature_flag(conn, FUSE_CAP_PASSTHROUGH))
		abort();
	conn->max_backing_stack_depth = 1;
}

static void serve_lookup(fuse_req_t req, fuse_ino_t parent, const char *wanted)
{
	struct fuse_entry_param entry = { .ino = NODE };
	int error = parent == FUSE_ROOT_ID && !strcmp(wanted, name) ?
		    attributes(NODE, &entry.attr) : ENOENT;

	if (error)
		fuse_reply_err(req, error);
	else
		fuse_reply_entry(req, &entry);
}

static void serve_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	int error = attributes(ino, &st);

	(void)fi;
	if (error)
		fuse_reply_err(req, error);
	else
		fuse_reply_attr(req, &st, 0);
}

static void serve_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int fd = ino == NODE ? open(path, fi->flags & O_ACCMODE) : -1;

	if (fd < 0) {
		fuse_reply_err(req, EISDIR);
		return;
	}
	fi->fh = fd;
	fi->backing_id = fuse_passthrough_open(req, fd);
	if (fi->backing_id <= 0)
		abort();
	fuse_reply_open(req, fi);
}

static void serve_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fuse_passthrough_close(req, fi->backing_id);
	close(fi->fh);
	fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops operations = {
	.init = serve_init,
	.lookup = serve_lookup,
	.getattr = serve_getattr,
	.open = serve_open,
	.release = serve_release,
};

int main(int argc, char **argv)
{
	char *options[] = { argv[0], "-oallow_other", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(2, options);
	struct fuse_session *session;

	if (argc != 3 || !(name = strrchr(argv[1], '/')))
		return 2;
	path = argv[1];
	name++;
	session = fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (!session || fuse_session_mount(session, argv[2]) < 0 || fuse_daemonize(0) < 0)
		return 1;
	fuse_session_loop(session);
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	return 0;
}
