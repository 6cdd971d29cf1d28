/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libfuse-dmabuf: reads files straight into dma-bufs.
 *
 * There are three kinds of objects: a file, a buffer (memory of an exporter), and a
 * channel, which joins a file and a buffer. A channel is either direct (the NVMe
 * controller writes into the buffer) or bounce (O_DIRECT reads into host memory, and
 * a copy). Both give the same result. The channel says which path it uses, and why.
 *
 *	fdmabuf_file_open("model.safetensors", &file);
 *	fdmabuf_buffer_allocate("udmabuf", fdmabuf_file_size(file), &buffer);
 *	fdmabuf_channel_open(file, buffer, NULL, &channel);
 *	fdmabuf_channel_read(channel, 0, 0, fdmabuf_file_size(file), 0);
 *
 * Conventions
 *  - Sizes and offsets are in bytes, times in milliseconds.
 *  - A function that can fail returns 0 (or a count), or a negative errno, and then
 *    sets the text that fdmabuf_error() returns. Output pointers are set only on
 *    success.
 *  - The caller owns the objects and closes them in the reverse order, because a
 *    channel uses its file and its buffer until it is closed. Closing NULL is
 *    allowed.
 *  - Only one thread at a time may use an object. Different objects are independent.
 *
 * When a token ends
 *    The broker can revoke a token (fuse-dmabuf revoke, a new policy, chmod). A read
 *    whose token is revoked asks once for a new one, which the policy grants or
 *    refuses. If the new one is refused, or revoked during the same read, the channel
 *    uses bounce from then on (FDMABUF_REASON_REVOKED), or with FDMABUF_DIRECT the
 *    read fails with -ESTALE.
 *
 *    When the server of a FUSE mount ends, its tokens end as well. A read then waits,
 *    for mount_wait at most, until the path of the file leads to a new FUSE mount. It
 *    opens the file again there, makes a new token and reads the missing bytes. Inode
 *    number, size and modification time of the file must be the same as at the start
 *    of the read, else the read fails with -ESTALE. A read waits like this 3 times at
 *    most. The open file keeps the old mount busy, so an administrator has to remove
 *    that mount lazily (umount -l) before mounting again.
 */
#ifndef FUSE_DMABUF_H
#define FUSE_DMABUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FDMABUF_API __attribute__((visibility("default")))

struct fdmabuf_file;
struct fdmabuf_buffer;
struct fdmabuf_channel;

/*
 * Returns the text of the last failure in this thread: one line without a newline,
 * which says what to do if there is a remedy. The text is valid until the next
 * failing call in this thread.
 */
FDMABUF_API const char *fdmabuf_error(void);

/* ------------------------------------------------------------------- files */

/*
 * Opens a regular file or a block device for reading, with O_DIRECT if the filesystem
 * allows it. Returns -EINVAL for other types of files. fdmabuf_file_close() closes
 * the file and frees the object.
 */
FDMABUF_API int fdmabuf_file_open(const char *path, struct fdmabuf_file **file);
FDMABUF_API void fdmabuf_file_close(struct fdmabuf_file *file);

/*
 * Returns the present size; a file may grow or shrink while it is open. Returns the
 * last known size if the FUSE server or the device has gone.
 */
FDMABUF_API uint64_t fdmabuf_file_size(const struct fdmabuf_file *file);

/* Returns true if the file is open with O_DIRECT, which the direct path needs. */
FDMABUF_API bool fdmabuf_file_is_direct(const struct fdmabuf_file *file);

/*
 * Returns the block size in bytes: direct reads start at multiples of it, in the file
 * and in the buffer. The value comes from statx(2), else from the block device, else
 * it is 4096. It is always a power of two.
 */
FDMABUF_API uint32_t fdmabuf_file_block_size(const struct fdmabuf_file *file);

/*
 * Reads through the page cache into host memory, at any offset and of any length.
 * Returns the number of bytes read, which is less than @length only at the end of the
 * file. If the FUSE server has ended, this function does not wait for a new mount, but
 * returns -ENOTCONN.
 */
FDMABUF_API int64_t fdmabuf_file_pread(struct fdmabuf_file *file, void *data, size_t length,
				       uint64_t offset);

/* ----------------------------------------------------------------- buffers */

/*
 * Allocates memory from the exporter that @what names:
 *
 *	"udmabuf"		host memory as a dma-buf
 *	"vfio:DOMAIN:BUS:DEV.FN"
 *				the biggest memory BAR of a PCI device that is
 *				bound to vfio-pci; the content of the BAR stays
 *				as it is
 *	"cuda", "cuda:NUMBER" or "cuda:DOMAIN:BUS:DEV.FN"
 *				memory of an NVIDIA GPU, in the primary context
 *				of the device: of the first GPU, or of the one
 *				with this CUDA number (see CUDA_VISIBLE_DEVICES)
 *				or PCI address. If the driver exports no dma-buf,
 *				only bounce is possible.
 *	"memory"		ordinary host memory without a dma-buf: only
 *				bounce is possible
 *
 * @size is rounded up to whole pages. 0 takes all that the exporter has (vfio only).
 * fdmabuf_buffer_free() frees the buffer.
 *
 * Errors: -EINVAL (@what or @size is not valid), -ENOSPC (the exporter has less than
 * @size), -ENODEV (there is no such device, or it is not bound to vfio-pci),
 * -EOPNOTSUPP (the kernel lacks the exporter, or the machine lacks NVIDIA's driver),
 * -EBUSY, -EACCES, -ENOMEM, -EIO (another error of the driver).
 */
FDMABUF_API int fdmabuf_buffer_allocate(const char *what, uint64_t size,
					struct fdmabuf_buffer **buffer);

/*
 * Makes a buffer of a dma-buf that another program or library has allocated.
 * @dmabuf_fd is duplicated and stays the caller's. The CPU accesses the buffer through
 * mmap(2); if the exporter does not support mmap(2), bounce and reads of holes fail
 * with -EOPNOTSUPP. Returns -EINVAL if @dmabuf_fd is not a dma-buf.
 */
FDMABUF_API int fdmabuf_buffer_import(int dmabuf_fd, struct fdmabuf_buffer **buffer);

/* Frees the buffer and its memory, or closes its device. */
FDMABUF_API void fdmabuf_buffer_free(struct fdmabuf_buffer *buffer);

FDMABUF_API uint64_t fdmabuf_buffer_size(const struct fdmabuf_buffer *buffer);

/*
 * Returns the dma-buf descriptor, or -1 if there is none. The buffer closes the
 * descriptor when it is freed; use dup(2) to keep one.
 */
FDMABUF_API int fdmabuf_buffer_fd(const struct fdmabuf_buffer *buffer);

/*
 * Returns the address of the memory in the device's own address space (cuda: a
 * CUdeviceptr, valid until the buffer is freed), or 0 if the exporter has no such
 * address.
 */
FDMABUF_API uint64_t fdmabuf_buffer_device_address(const struct fdmabuf_buffer *buffer);

/* Returns the name of the exporter: "udmabuf", "vfio", "cuda", "memory" or "import". */
FDMABUF_API const char *fdmabuf_buffer_exporter(const struct fdmabuf_buffer *buffer);

/*
 * Copy between host memory and the buffer, and zero a range of the buffer. The CPU does
 * this, with the exporter's cache maintenance, or (cuda) the GPU does. Errors: -EFAULT
 * (the range is outside the buffer), -EOPNOTSUPP (the exporter gives the CPU no access).
 */
FDMABUF_API int fdmabuf_buffer_write(struct fdmabuf_buffer *buffer, uint64_t offset,
				     const void *data, size_t length);
FDMABUF_API int fdmabuf_buffer_read(struct fdmabuf_buffer *buffer, uint64_t offset,
				    void *data, size_t length);
FDMABUF_API int fdmabuf_buffer_zero(struct fdmabuf_buffer *buffer, uint64_t offset,
				    uint64_t length);

/* ---------------------------------------------------------------- channels */

enum fdmabuf_path {
	FDMABUF_AUTO,		/* direct if possible, else bounce */
	FDMABUF_DIRECT,		/* direct, or fail: the CPU copies no byte of the file */
	FDMABUF_BOUNCE,		/* bounce, even if direct is possible */
};

/* Why a channel is not direct. */
enum fdmabuf_reason {
	FDMABUF_REASON_NONE,		/* the channel is direct */
	FDMABUF_REASON_ASKED,		/* the caller asked for bounce */
	FDMABUF_REASON_NO_RING,		/* io_uring is not available */
	FDMABUF_REASON_NO_DMABUF,	/* ordinary memory, or the exporter gave no dma-buf */
	FDMABUF_REASON_NOT_DIRECT,	/* the file cannot be opened with O_DIRECT */
	FDMABUF_REASON_KERNEL,		/* the kernel has no dma-buf tokens */
	FDMABUF_REASON_UNSUPPORTED,	/* filesystem, FUSE server or device has no tokens */
	FDMABUF_REASON_REFUSED,		/* the broker refused the token */
	FDMABUF_REASON_REVOKED,		/* the broker revoked the token and gave no new one */
	FDMABUF_REASON_FAILED,		/* the registration failed: see the text */
};

/* A zero in any field stands for its default. */
struct fdmabuf_channel_options {
	enum fdmabuf_path path;
	uint32_t depth;		/* requests in flight, 1 to FDMABUF_DEPTH_MAX; 0 = 16 */
	uint32_t chunk;		/* bytes per request, a multiple of 4096 up to
				 * FDMABUF_CHUNK_MAX; 0 = 1 MiB */
	uint32_t mount_wait;	/* ms that a read waits for a new mount after the FUSE server
				 * has ended, up to FDMABUF_MOUNT_WAIT_MAX; 0 = 10 s;
				 * FDMABUF_MOUNT_WAIT_NONE = do not wait */
	uint32_t reserved[4];	/* must be zero */
};

#define FDMABUF_DEPTH_MAX 256u
#define FDMABUF_CHUNK_MAX (1u << 30)		/* bytes: 1 GiB */
#define FDMABUF_MOUNT_WAIT_MAX 3600000u		/* ms: one hour */
#define FDMABUF_MOUNT_WAIT_NONE UINT32_MAX

/*
 * Joins @file and @buffer, and registers the buffer for the file (a token) unless
 * @options ask for bounce. @options may be NULL. Bounce needs at most 16 MiB of host
 * memory, with any depth and chunk. fdmabuf_channel_close() frees the channel.
 *
 * Errors: -ENOTCONN (the FUSE server has ended). With FDMABUF_DIRECT, also -EOPNOTSUPP
 * (the channel cannot be direct), or the error of the registration.
 */
FDMABUF_API int fdmabuf_channel_open(struct fdmabuf_file *file, struct fdmabuf_buffer *buffer,
				     const struct fdmabuf_channel_options *options,
				     struct fdmabuf_channel **channel);

/* Ends the token and frees the channel. */
FDMABUF_API void fdmabuf_channel_close(struct fdmabuf_channel *channel);

/*
 * Returns FDMABUF_DIRECT or FDMABUF_BOUNCE. A read changes the path from direct to
 * bounce, and never back, when the broker revokes the token and gives no new one
 * (FDMABUF_REASON_REVOKED), or when the file gets no token on its new mount.
 */
FDMABUF_API enum fdmabuf_path fdmabuf_channel_path(const struct fdmabuf_channel *channel);

/*
 * Return the reason why the channel is not direct, as a code and as a text ("" if it is
 * direct). The text is valid until the channel is closed, and may change with the path.
 */
FDMABUF_API enum fdmabuf_reason fdmabuf_channel_reason(const struct fdmabuf_channel *channel);
FDMABUF_API const char *fdmabuf_channel_reason_text(const struct fdmabuf_channel *channel);

/*
 * A flag of fdmabuf_channel_read(): the read may overwrite the rest of the first and of
 * the last block of the range in the buffer, with the bytes that the file has there, or
 * with any bytes after the end of the file.
 */
#define FDMABUF_WHOLE_BLOCKS 1u

/*
 * Reads @length bytes at @file_offset of the file to @buffer_offset of the buffer, and
 * returns when the read is complete. Returns the number of bytes read, which is less
 * than @length only at the end of the file. Holes of the file become zeros. On return
 * all bytes are in the buffer, and visible to the device that owns the buffer.
 *
 * Bytes of the buffer outside the range do not change, so the CPU copies the partial
 * blocks at both ends of the range. With FDMABUF_WHOLE_BLOCKS these are read directly as
 * well. The two offsets must be equal modulo the block size, else the whole range is
 * copied. With FDMABUF_DIRECT, a read that needs a copy fails with -EINVAL.
 *
 * Errors, beside those of the device: -EFAULT (the range is outside the buffer), -ESTALE
 * (with FDMABUF_DIRECT, the token has ended and there is no new one; or the mount has
 * returned with another file, or with a changed file), -ENOTCONN (the FUSE server has
 * ended and the mount has not returned), -ECANCELED (the progress function cancelled).
 * After an error any part of the range may have been written, and no request is in
 * flight. The channel can be used again, also after -ENOTCONN once the mount has returned.
 */
FDMABUF_API int64_t fdmabuf_channel_read(struct fdmabuf_channel *channel, uint64_t file_offset,
					 uint64_t buffer_offset, uint64_t length, unsigned flags);

/*
 * Sets the function that fdmabuf_channel_read() calls when requests have completed, after
 * a signal, and every 100 ms while it waits for a mount. If @progress returns non-zero,
 * the read is cancelled. NULL removes the function.
 */
typedef int fdmabuf_progress(void *argument, uint64_t done, uint64_t total);
FDMABUF_API void fdmabuf_channel_on_progress(struct fdmabuf_channel *channel,
					     fdmabuf_progress *progress, void *argument);

/* For the progress function: returns true while the read waits for the mount to return. */
FDMABUF_API bool fdmabuf_channel_is_waiting(const struct fdmabuf_channel *channel);

/* Totals over all reads of the channel. */
struct fdmabuf_counters {
	uint64_t bytes_direct;	/* written to the buffer by DMA */
	uint64_t bytes_copied;	/* copied to the buffer from host memory */
	uint64_t bytes_zeroed;	/* holes that were zeroed, not read, on a direct channel */
	uint64_t requests;	/* read requests submitted to the kernel */
	uint64_t retries;	/* of these, submitted again: EAGAIN, short read, new token */
	uint64_t tokens;	/* registrations: 1 for a direct channel, 2 after a revoke */
	uint64_t reopens;	/* times that the file was opened again on a new mount */
};
FDMABUF_API void fdmabuf_channel_counters(const struct fdmabuf_channel *channel,
					  struct fdmabuf_counters *counters);

#ifdef __cplusplus
}
#endif
#endif
