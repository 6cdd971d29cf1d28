/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file/ has the files: their descriptors, what tells one version of a file from another, and how
 * they return on a new mount.
 * May call: base.
 */
#ifndef FDMABUF_FILE_H
#define FDMABUF_FILE_H

#include <fcntl.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include "base/object.h"
#include "fuse-dmabuf.h"

/* In bytes. NVMe and the block layer have no smaller blocks. */
#define BLOCK_SIZE_MIN 512u

/* ------------------------------------------------------------ filesystem.c */

bool is_on_fuse(int fd);

/*
 * Returns true if the server of the FUSE mount that @fd is on has ended. Each call is a request to
 * the server, too slow for a path that data takes.
 */
bool server_has_ended(int fd);

/* ------------------------------------------------------------------ file.c */

/*
 * The descriptors of a file on one mount. They never change, so that requests may use them without
 * a lock. When the file returns on a new mount it gets a new handle; the old one is closed when
 * nobody uses it any more.
 */
struct fd_handle {
	atomic_uint references;
	int fd;			/* open with O_DIRECT if is_direct */
	int plain_fd;		/* open without O_DIRECT; fd itself if that is */
	atomic_int read_fd;	/* see handle_reader(); -1 = none yet */
	bool is_direct;
	bool is_fuse;
	uint32_t block_size;
	dev_t device;
	dev_t data_device;	/* of a block device itself, of other files the same as device */
	ino_t inode;
	atomic_int mincore_verdict;	/* see cached.c */
};

struct fdmabuf_file {
	struct object object;
	char *path;		/* as the caller named the file, for messages */
	int access;		/* O_RDONLY, O_WRONLY or O_RDWR */
	uint32_t block_size;
	/*
	 * Where file_reopen() opens the file after its FUSE server has ended: an absolute path
	 * without symbolic links. NULL if the file is not on FUSE or has no name.
	 */
	char *real_path;
	_Atomic uint64_t last_size;	/* as fstat(2) last said */
	struct fd_handle *handle;	/* protected by the lock of all objects */
};

/* Returns the present handle with a reference, which handle_put() drops. */
struct fd_handle *file_get_handle(struct fdmabuf_file *file);
void handle_put(struct fd_handle *handle);

/* Opens @path. Sets *handle, with one reference, or returns a negative errno. */
int handle_open(const char *path, int flags, unsigned mode, struct fd_handle **handle);

/*
 * Returns a descriptor with O_DIRECT for reading back what was written: of a file that is open for
 * writing only, another one. Returns -1 if the caller may not read the file.
 */
int handle_reader(struct fd_handle *handle);

/* Return true if the file is open for reading, or for writing. */
static inline bool file_is_readable(const struct fdmabuf_file *file)
{
	return file->access != O_WRONLY;
}

static inline bool file_is_writable(const struct fdmabuf_file *file)
{
	return file->access != O_RDONLY;
}

/* What changes when somebody writes to a file, or sets its times. */
struct file_version {
	uint64_t size;
	struct timespec mtime, ctime;
};

/*
 * Sets *version and returns true, or returns false if fstat(2) fails, as it does without a server.
 */
bool handle_get_version(const struct fd_handle *handle, struct file_version *version);

/* Returns NULL if the versions are the same, else what has changed, for a message. */
const char *file_version_difference(const struct file_version *before,
				    const struct file_version *now);

/* Records the size that fdmabuf_file_size() returns if it cannot find the present one. */
void file_note_size(struct fdmabuf_file *file, uint64_t size);

/* ---------------------------------------------------------------- cached.c */

/*
 * Returns true if the page cache has all bytes from @from up to *end, which is at most @to. Returns
 * false if they are to be read from the device. *end is a multiple of the block size, or @to. The
 * answer may be wrong soon.
 */
bool handle_find_cached(struct fd_handle *handle, uint64_t from, uint64_t to, uint64_t *end);

/*
 * Reads what the page cache has, without waiting for the device where the filesystem knows how to.
 * Returns the number of bytes, which is less than those of the pieces if the page cache does not
 * have all, the file ends, or the memory is not there. Changes the pieces.
 */
uint64_t handle_read_cached(const struct fd_handle *handle, struct iovec *pieces, unsigned count,
			    uint64_t offset);

/* ---------------------------------------------------------------- reopen.c */

/*
 * Returns true if @error (a positive errno of a failed request) means that the FUSE server of the
 * handle's mount has ended.
 */
bool handle_is_lost(const struct fd_handle *handle, int error);

/*
 * Opens the file again on a new mount, after the FUSE server of @old has ended. Sets *handle, with
 * a reference, to what another thread may have opened before. Returns -EAGAIN if the mount is not
 * there yet: call again later. Any other error is final: the path leads to another file.
 */
int file_reopen(struct fdmabuf_file *file, const struct fd_handle *old,
		struct fd_handle **handle);

#endif
