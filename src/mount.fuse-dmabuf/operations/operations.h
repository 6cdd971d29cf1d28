/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * operations/ answers the kernel's requests.
 * May call: broker, containers, identity, limits, log, nodes, transport.
 *
 * libfuse calls the functions below; they are listed by the file that has them. Requests that
 * libfuse does not know are answered in statx.c, syncfs.c and token-requests.c.
 */
#ifndef OPERATIONS_H
#define OPERATIONS_H

#include <fuse_lowlevel.h>

/* names.c */
void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t req, fuse_ino_t nodeid, uint64_t lookups);
void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void op_link(fuse_req_t req, fuse_ino_t nodeid, fuse_ino_t parent, const char *name);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
	       const char *new_name, unsigned int flags);

/* attributes.c */
void op_getattr(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *info);
void op_setattr(fuse_req_t req, fuse_ino_t nodeid, struct stat *attr, int which,
		struct fuse_file_info *info);
void op_readlink(fuse_req_t req, fuse_ino_t nodeid);
void op_statfs(fuse_req_t req, fuse_ino_t nodeid);

/* directory.c */
void op_opendir(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *info);
void op_readdir(fuse_req_t req, fuse_ino_t nodeid, size_t size, off_t offset,
		struct fuse_file_info *info);
void op_readdirplus(fuse_req_t req, fuse_ino_t nodeid, size_t size, off_t offset,
		    struct fuse_file_info *info);
void op_fsyncdir(fuse_req_t req, fuse_ino_t nodeid, int datasync, struct fuse_file_info *info);
void op_releasedir(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *info);

/* file.c */
void op_open(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *info);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *info);
void op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *info);
void op_release(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *info);

/* data.c */
void op_read(fuse_req_t req, fuse_ino_t nodeid, size_t size, off_t offset,
	     struct fuse_file_info *info);
void op_write(fuse_req_t req, fuse_ino_t nodeid, const char *data, size_t size, off_t offset,
	      struct fuse_file_info *info);
void op_fsync(fuse_req_t req, fuse_ino_t nodeid, int datasync, struct fuse_file_info *info);
void op_fallocate(fuse_req_t req, fuse_ino_t nodeid, int mode, off_t offset, off_t length,
		  struct fuse_file_info *info);
void op_lseek(fuse_req_t req, fuse_ino_t nodeid, off_t offset, int whence,
	      struct fuse_file_info *info);
void op_copy_file_range(fuse_req_t req, fuse_ino_t nodeid_in, off_t offset_in,
			struct fuse_file_info *info_in, fuse_ino_t nodeid_out, off_t offset_out,
			struct fuse_file_info *info_out, size_t length, int flags);

/* xattr.c */
void op_getxattr(fuse_req_t req, fuse_ino_t nodeid, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t nodeid, size_t size);
void op_setxattr(fuse_req_t req, fuse_ino_t nodeid, const char *name, const char *value,
		 size_t size, int flags);
void op_removexattr(fuse_req_t req, fuse_ino_t nodeid, const char *name);

#endif
