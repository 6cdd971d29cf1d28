/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libfuse-dmabuf: read files straight into dma-bufs.
 *
 * Three objects: a file, a buffer (memory of an exporter), and a channel that
 * joins the two. A channel is either direct (the NVMe controller writes into the
 * buffer) or bounce (O_DIRECT read into a little host memory, then a copy). The
 * result is the same; the channel says which one it is, and why.
 *
 *	fdmabuf_file_open("model.safetensors", &file);
 *	fdmabuf_buffer_allocate("udmabuf", fdmabuf_file_size(file), &buffer);
 *	fdmabuf_channel_open(file, buffer, NULL, &channel);
 *	fdmabuf_channel_read(channel, 0, 0, fdmabuf_file_size(file), 0);
 *
 * Conventions
 *  - Sizes and offsets are bytes, times are milliseconds.
 *  - Functions that can fail return 0 (or a count) or a negative errno, and leave
 *    one line of text in fdmabuf_error(). Output pointers are set on success only.
 *  - Objects belong to the caller, who closes them in the reverse order: a channel
 *    uses its file and its buffer until it is closed. Closing NULL is allowed.
 *  - An object may be used by one thread at a time; different objects are
 *    independent.
 *
 * When a token ends
 *    The broker can revoke a token (fuse-dmabuf revoke, a new policy, chmod). The read
 *    that meets this asks once for a new one: the policy decides. If it is refused, or
 *    revoked as well during that read, the channel bounces from then on
 *    (FDMABUF_REASON_REVOKED), or with FDMABUF_DIRECT the read fails with -ESTALE.
 *
 *    When the server of a FUSE mount ends, the token ends with the connection. The read
 *    waits until the mount has returned, that is, until the file's path leads to a new
 *    FUSE mount; opens the file again, makes a new token, and reads what is missing. Only
 *    if inode number, size and modification time are those of the start of the read: else it
 *    fails with -ESTALE. So that the mount can return, the old one must be taken away lazily
 *    (umount -l): the open file keeps it busy. mount_wait says how long to wait.
 *    A read does this 3 times at most.
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

/* Text of this thread's last failure, one line without a newline, naming the cure
 * where there is one. Valid until the thread's next failing call. */
FDMABUF_API const char *fdmabuf_error(void);

/* ------------------------------------------------------------------- files */

/* Opens a regular file or a block device for reading, with O_DIRECT where the
 * filesystem allows it. Other kinds of file: -EINVAL. */
FDMABUF_API int fdmabuf_file_open(const char *path, struct fdmabuf_file **file);
FDMABUF_API void fdmabuf_file_close(struct fdmabuf_file *file);

/* The size now; a file may grow or shrink while it is open. Where it can no longer be asked for (the
 * FUSE server, or the device, is gone): what it was last. */
FDMABUF_API uint64_t fdmabuf_file_size(const struct fdmabuf_file *file);

/* Whether the file is open with O_DIRECT. Without it there is only bounce. */
FDMABUF_API bool fdmabuf_file_is_direct(const struct fdmabuf_file *file);

/* Direct reads start at multiples of this many bytes, in the file and in the buffer.
 * From statx(2), else from the block device, else 4096. Always a power of two. */
FDMABUF_API uint32_t fdmabuf_file_block_size(const struct fdmabuf_file *file);

/* Ordinary read(2) through the page cache: any offset, any length. Returns the bytes
 * read, fewer than @length only at the end of the file. Does not wait for a mount: -ENOTCONN. */
FDMABUF_API int64_t fdmabuf_file_pread(struct fdmabuf_file *file, void *data, size_t length,
				       uint64_t offset);

/* ----------------------------------------------------------------- buffers */

/*
 * Allocates memory from an exporter, named by @what:
 *
 *	"udmabuf"			host memory as a dma-buf
 *	"vfio:DOMAIN:BUS:DEV.FN"	the biggest memory BAR of a PCI device that is bound to
 *					vfio-pci; what the BAR holds is left as it is
 *	"cuda", "cuda:NUMBER" or	memory of an NVIDIA GPU: the first, or by CUDA's number (see
 *	"cuda:DOMAIN:BUS:DEV.FN"	CUDA_VISIBLE_DEVICES) or its PCI address. In the device's primary
 *					context. Without a dma-buf, and bounce only, where the driver exports none
 *	"memory"			ordinary host memory, no dma-buf: bounce only
 *
 * @size is rounded up to whole pages. 0 takes all that the exporter has (vfio only).
 * Errors: -EINVAL (@what or @size is not understood), -ENOSPC (the exporter has less than
 * @size), -ENODEV (no such device, or not bound to vfio-pci), -EOPNOTSUPP (the kernel lacks the
 * exporter, or the machine NVIDIA's driver), -EBUSY, -EACCES, -ENOMEM, -EIO (another error of the driver).
 */
FDMABUF_API int fdmabuf_buffer_allocate(const char *what, uint64_t size,
					struct fdmabuf_buffer **buffer);

/* Takes a dma-buf that somebody else made. @dmabuf_fd is duplicated and stays the caller's.
 * The CPU reaches it by mmap(2); where the exporter has none, bounce and holes in the file
 * give -EOPNOTSUPP. -EINVAL: not a dma-buf. */
FDMABUF_API int fdmabuf_buffer_import(int dmabuf_fd, struct fdmabuf_buffer **buffer);

/* Frees the memory (or gives the device back). */
FDMABUF_API void fdmabuf_buffer_free(struct fdmabuf_buffer *buffer);

FDMABUF_API uint64_t fdmabuf_buffer_size(const struct fdmabuf_buffer *buffer);

/* The dma-buf descriptor, still the buffer's own (dup(2) it to keep it); -1 where there is none. */
FDMABUF_API int fdmabuf_buffer_fd(const struct fdmabuf_buffer *buffer);

/* Where the memory is in the device's own address space (cuda: a CUdeviceptr, good until the buffer is freed);
 * 0 for exporters that have none. */
FDMABUF_API uint64_t fdmabuf_buffer_device_address(const struct fdmabuf_buffer *buffer);

/* "udmabuf", "vfio", "cuda", "memory" or "import". */
FDMABUF_API const char *fdmabuf_buffer_exporter(const struct fdmabuf_buffer *buffer);

/* Copies between host memory and the buffer, and zeroing, by the CPU with the exporter's cache
 * maintenance, or (cuda) by the GPU. -EFAULT: outside the buffer. -EOPNOTSUPP: the CPU has no access. */
FDMABUF_API int fdmabuf_buffer_write(struct fdmabuf_buffer *buffer, uint64_t offset,
				     const void *data, size_t length);
FDMABUF_API int fdmabuf_buffer_read(struct fdmabuf_buffer *buffer, uint64_t offset,
				    void *data, size_t length);
FDMABUF_API int fdmabuf_buffer_zero(struct fdmabuf_buffer *buffer, uint64_t offset,
				    uint64_t length);

/* ---------------------------------------------------------------- channels */

enum fdmabuf_path {
	FDMABUF_AUTO,		/* direct where possible, else bounce */
	FDMABUF_DIRECT,		/* direct or fail: no byte of the file is copied by the CPU */
	FDMABUF_BOUNCE,		/* bounce even where direct is possible */
};

/* Why a channel is not direct. */
enum fdmabuf_reason {
	FDMABUF_REASON_NONE,		/* it is direct */
	FDMABUF_REASON_ASKED,		/* the caller asked for bounce */
	FDMABUF_REASON_NO_RING,		/* io_uring is not available */
	FDMABUF_REASON_NO_DMABUF,	/* the buffer is ordinary memory, or its exporter gives no dma-buf */
	FDMABUF_REASON_NOT_DIRECT,	/* the file cannot be opened with O_DIRECT */
	FDMABUF_REASON_KERNEL,		/* the kernel has no dma-buf tokens */
	FDMABUF_REASON_UNSUPPORTED,	/* the filesystem, its server or its device has none */
	FDMABUF_REASON_REFUSED,		/* the broker refused the token */
	FDMABUF_REASON_REVOKED,		/* the broker ended the token and gave no new one */
	FDMABUF_REASON_FAILED,		/* the registration failed otherwise; see the text */
};

/* All zero means the defaults. */
struct fdmabuf_channel_options {
	enum fdmabuf_path path;
	uint32_t depth;		/* requests in flight, 1 to FDMABUF_DEPTH_MAX; 0 = 16 */
	uint32_t chunk;		/* bytes a request, a multiple of 4096 up to FDMABUF_CHUNK_MAX; 0 = 1 MiB */
	uint32_t mount_wait;	/* ms that a read waits for a mount whose server has ended, up to
				 * FDMABUF_MOUNT_WAIT_MAX; 0 = 10 s; FDMABUF_MOUNT_WAIT_NONE = not at all */
	uint32_t reserved[4];	/* zero */
};

#define FDMABUF_DEPTH_MAX 256u
#define FDMABUF_CHUNK_MAX (1u << 30)
#define FDMABUF_MOUNT_WAIT_MAX 3600000u
#define FDMABUF_MOUNT_WAIT_NONE UINT32_MAX

/*
 * Joins @file and @buffer, and registers the buffer for the file (a token) unless @options say
 * bounce. Bounce needs at most 16 MiB of host memory, whatever depth and chunk are.
 * @options may be NULL. With FDMABUF_DIRECT, a channel that cannot be direct is an error that
 * says why: -EOPNOTSUPP, or what the registration gave. -ENOTCONN: the FUSE server has ended.
 */
FDMABUF_API int fdmabuf_channel_open(struct fdmabuf_file *file, struct fdmabuf_buffer *buffer,
				     const struct fdmabuf_channel_options *options,
				     struct fdmabuf_channel **channel);

/* Ends the token. */
FDMABUF_API void fdmabuf_channel_close(struct fdmabuf_channel *channel);

/* FDMABUF_DIRECT or FDMABUF_BOUNCE. A read can turn a direct channel into a bounce one, for good, when
 * the broker ends the token (FDMABUF_REASON_REVOKED) or a mount that has returned gives none. */
FDMABUF_API enum fdmabuf_path fdmabuf_channel_path(const struct fdmabuf_channel *channel);

/* Why it is not direct, as code and as text ("" when it is direct). The text lives as long
 * as the channel and may change with the path. */
FDMABUF_API enum fdmabuf_reason fdmabuf_channel_reason(const struct fdmabuf_channel *channel);
FDMABUF_API const char *fdmabuf_channel_reason_text(const struct fdmabuf_channel *channel);

/* For fdmabuf_channel_read(): the rest of the first and the last block that the range touches may
 * be overwritten in the buffer with what the file has there (behind its end: with anything). */
#define FDMABUF_WHOLE_BLOCKS 1u

/*
 * Reads @length bytes at @file_offset to @buffer_offset and waits for the end. Returns the bytes
 * read, fewer than @length only where the file ends.
 *
 * Nothing outside the range is changed in the buffer, so the partial blocks at its ends are copied
 * by the CPU; with FDMABUF_WHOLE_BLOCKS they are read directly as well. The two offsets must be equal
 * modulo the block size, else the whole range is copied. (With FDMABUF_DIRECT, where a copy is needed
 * the read fails with -EINVAL instead.) Holes of the file become zeros.
 *
 * When it returns, all bytes are in the buffer, for what its own device does afterwards too.
 *
 * Errors: -EFAULT (outside the buffer), -ESTALE (the token has ended, there is no new one, and the path may
 * not change; or the mount has returned with another file, or the file has changed), -ENOTCONN (the FUSE
 * server has ended, and the mount has not returned), -ECANCELED (by the progress function), or what
 * the device gave. After an error any part of the range may have been written; no request is in flight
 * any more. The channel can be used again, also after -ENOTCONN once the mount has returned.
 */
FDMABUF_API int64_t fdmabuf_channel_read(struct fdmabuf_channel *channel, uint64_t file_offset,
					 uint64_t buffer_offset, uint64_t length, unsigned flags);

/* @progress is called from fdmabuf_channel_read() whenever requests have completed, after a signal, and
 * every 100 ms of waiting for a mount. Non-zero cancels the read. NULL ends it. */
typedef int fdmabuf_progress(void *argument, uint64_t done, uint64_t total);
FDMABUF_API void fdmabuf_channel_on_progress(struct fdmabuf_channel *channel,
					     fdmabuf_progress *progress, void *argument);

/* For the progress function: whether the read is waiting for the mount to return. */
FDMABUF_API bool fdmabuf_channel_is_waiting(const struct fdmabuf_channel *channel);

/* Sums over all reads of the channel. */
struct fdmabuf_counters {
	uint64_t bytes_direct;	/* written to the buffer by DMA */
	uint64_t bytes_copied;	/* copied to the buffer from host memory */
	uint64_t bytes_zeroed;	/* holes, zeroed by the CPU on a direct channel */
	uint64_t requests;	/* read requests submitted to the kernel */
	uint64_t retries;	/* of these, requests submitted again: EAGAIN, a short read, a new token */
	uint64_t tokens;	/* registrations made: 1 for a direct channel, 2 after a revocation */
	uint64_t reopens;	/* times that the file was opened again, on a mount that had returned */
};
FDMABUF_API void fdmabuf_channel_counters(const struct fdmabuf_channel *channel,
					  struct fdmabuf_counters *counters);

#ifdef __cplusplus
}
#endif
#endif
