/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libfuse-dmabuf: moves data between files and dma-bufs.
 *
 * There are four kinds of objects: a file, a buffer (memory of an exporter), a queue, and a
 * transfer, which is one operation of a queue on any number of ranges. A range moves directly (the
 * NVMe controller reads or writes the buffer, with a token), by direct I/O without a token
 * (O_DIRECT to the pages of a buffer of host memory), or by bounce (O_DIRECT between the file and
 * host memory, and a copy). Without a token, a read copies from the page cache what is there. All
 * give the same result.
 *
 *	fdmabuf_file_open("model.safetensors", O_RDONLY, 0, &file);
 *	fdmabuf_buffer_allocate("udmabuf", fdmabuf_file_size(file), &buffer);
 *	fdmabuf_queue_open(NULL, &queue);
 *	fdmabuf_read(queue, &(struct fdmabuf_range){ file, 0, buffer, 0, size }, 1, 0);
 *
 * Conventions
 *  - Sizes and offsets are in bytes, times in milliseconds.
 *  - A function that can fail returns 0 (or a count), or a negative errno, and then sets the text
 *    that fdmabuf_error() returns. Output pointers are set only on success.
 *  - A struct with a member "size" begins with it: set it to sizeof of the struct. The library
 *    accepts the struct of an older or a newer version; a newer one must have zeros in the members
 *    that the library does not know, else the call fails with -E2BIG.
 *
 * Threads and references
 *  - Files and buffers may be used by any number of queues and threads at the same time. They are
 *    counted: fdmabuf_file_ref() and fdmabuf_buffer_ref() add a reference, fdmabuf_file_close() and
 *    fdmabuf_buffer_free() drop one. A transfer holds references to its files and buffers until it
 *    has finished. The tokens that a queue keeps do not: they end with the file or the buffer.
 *  - A queue and its transfers may be used by one thread at a time. A thread that has started a
 *    transfer must not end before the transfer has finished.
 *
 * After fork(2)
 *    Files and buffers can be used in the child (except memory of a GPU, which CUDA does not share
 *    with a child). A queue stays the parent's: in the child its functions fail with -ECHILD, and
 *    fdmabuf_queue_close() and fdmabuf_transfer_free() only free the child's copy.
 *
 * When a token ends
 *    The broker can revoke a token (fuse-dmabuf revoke, a new policy, chmod). A transfer whose
 *    token is revoked asks once for a new one, which the policy grants or refuses. If the new one
 *    is refused, or revoked during the same transfer, the queue uses bounce for this file and
 *    buffer from then on (FDMABUF_REASON_REVOKED), or with FDMABUF_DIRECT the transfer fails with
 *    -ESTALE.
 *
 *    When the server of a FUSE mount ends, its tokens end as well. Ranges of that file then wait,
 *    for mount_wait at most, until the path of the file leads to a new FUSE mount. The file is
 *    opened again there, gets new tokens, and the missing bytes are moved. A transfer that reads
 *    fails with -ESTALE unless inode number, size, and times of modification and change are the
 *    same as at its start. A transfer waits like this 3 times at most for each file. The open file
 *    keeps the old mount busy, so an administrator has to remove that mount lazily (umount -l)
 *    before mounting again.
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

/* The version of this header. fdmabuf_version() returns the library's, for example "0.3.0". */
#define FDMABUF_VERSION_MAJOR 0
#define FDMABUF_VERSION_MINOR 3
#define FDMABUF_VERSION_PATCH 0
FDMABUF_API const char *fdmabuf_version(void);

struct fdmabuf_file;
struct fdmabuf_buffer;
struct fdmabuf_queue;
struct fdmabuf_transfer;

/*
 * Returns the text of the last failure in this thread: one line without a newline, which says what
 * to do if there is a remedy. The text is valid until the next failing call in this thread.
 */
FDMABUF_API const char *fdmabuf_error(void);

/*
 * Sets the function that warnings go to: what a person should know, though no call fails, each one
 * once per process. @text is one line without a newline. The function may be called in any thread
 * that uses a queue, and must not call the library. Without a function, or with NULL, a warning is
 * a line on standard error.
 */
typedef void fdmabuf_warning_function(void *data, const char *text);
FDMABUF_API void fdmabuf_on_warning(fdmabuf_warning_function *function, void *data);

/* ------------------------------------------------------------------- files */

/*
 * Opens a regular file or a block device, with O_DIRECT if the filesystem allows it. @flags are
 * those of open(2): O_RDONLY, O_WRONLY or O_RDWR, and O_CREAT, O_EXCL and O_TRUNC; @mode is for
 * O_CREAT. Returns -EINVAL for other flags and other types of files. fdmabuf_file_close() drops the
 * reference; the last one closes the file.
 */
FDMABUF_API int fdmabuf_file_open(const char *path, int flags, unsigned mode,
				  struct fdmabuf_file **file);
FDMABUF_API struct fdmabuf_file *fdmabuf_file_ref(struct fdmabuf_file *file);
FDMABUF_API void fdmabuf_file_close(struct fdmabuf_file *file);

/*
 * Returns the present size; a file may grow or shrink while it is open. Returns the last known size
 * if the FUSE server or the device has gone.
 */
FDMABUF_API uint64_t fdmabuf_file_size(const struct fdmabuf_file *file);

/* Sets the size of a regular file that is open for writing. */
FDMABUF_API int fdmabuf_file_resize(struct fdmabuf_file *file, uint64_t size);

/* Returns true if the file is open with O_DIRECT, which the direct path needs. */
FDMABUF_API bool fdmabuf_file_is_direct(const struct fdmabuf_file *file);

/*
 * Returns the block size in bytes: direct requests start at multiples of it, in the file and in the
 * buffer. The value comes from statx(2), else from the block device, else it is 4096. It is always
 * a power of two.
 */
FDMABUF_API uint32_t fdmabuf_file_block_size(const struct fdmabuf_file *file);

/*
 * Read and write through the page cache, from and to host memory, at any offset and of any length.
 * Both return the number of bytes. fdmabuf_file_pread() returns less than @length only at the end
 * of the file. If the FUSE server has ended, both return -ENOTCONN and do not wait for a new mount.
 */
FDMABUF_API int64_t fdmabuf_file_pread(struct fdmabuf_file *file, void *data, size_t length,
				       uint64_t offset);
FDMABUF_API int64_t fdmabuf_file_pwrite(struct fdmabuf_file *file, const void *data,
					size_t length, uint64_t offset);

/* Makes what was written durable, as fdatasync(2) does. */
FDMABUF_API int fdmabuf_file_sync(struct fdmabuf_file *file);

/* ----------------------------------------------------------------- buffers */

/* Where the memory of a buffer comes from. */
enum fdmabuf_exporter {
	FDMABUF_EXPORTER_MEMORY,	/* ordinary host memory, without a dma-buf */
	FDMABUF_EXPORTER_UDMABUF,	/* host memory as a dma-buf */
	FDMABUF_EXPORTER_HEAP,		/* a dma-heap: /dev/dma_heap/NAME */
	FDMABUF_EXPORTER_DRM,		/* a GPU with a driver in the kernel: /dev/dri */
	FDMABUF_EXPORTER_VFIO,		/* a BAR of a PCI device that is bound to vfio-pci */
	FDMABUF_EXPORTER_CUDA,		/* an NVIDIA GPU */
	FDMABUF_EXPORTER_HIP,		/* an AMD GPU with ROCm */
	FDMABUF_EXPORTER_IMPORT,	/* a dma-buf of somebody else */
};

/* What is to be allocated. Zeros in the optional members mean none. */
struct fdmabuf_memory {
	size_t size;			/* sizeof(struct fdmabuf_memory) */
	enum fdmabuf_exporter exporter;
	uint32_t number;		/* CUDA and HIP: of the device, unless @device is set */
	uint64_t bytes;			/* rounded up to whole pages; 0 = all (VFIO only) */
	const char *device;		/* PCI address (VFIO, CUDA, HIP, DRM), device node (DRM) or
					 * name of a heap; optional, except for VFIO */
	uint64_t page_size;		/* MEMORY, UDMABUF: in huge pages of this many bytes;
					 * optional */
};

/*
 * Allocates memory. fdmabuf_buffer_free() drops the reference; the last one frees the memory.
 *
 * Errors: -EINVAL (a member is not valid, or the exporter has no such option), -ENOSPC (the
 * exporter has less), -ENODEV (there is no such device, or it is not bound to vfio-pci),
 * -EOPNOTSUPP (the kernel lacks the exporter, or the machine lacks the driver), -EBUSY, -EACCES,
 * -ENOMEM, -EIO (another error of the driver).
 */
FDMABUF_API int fdmabuf_buffer_create(const struct fdmabuf_memory *memory,
				      struct fdmabuf_buffer **buffer);

/*
 * Does the same with a text instead of a struct:
 *
 *	"memory"		ordinary host memory without a dma-buf
 *	"udmabuf", "udmabuf:2M", "udmabuf:1G"
 *				host memory as a dma-buf, in ordinary pages or
 *				in huge ones (which have to be reserved: see
 *				/proc/sys/vm/nr_hugepages)
 *	"heap", "heap:NAME"	host memory from a dma-heap: "system", or the
 *				one with this name in /dev/dma_heap
 *	"drm", "drm:NODE" or "drm:DOMAIN:BUS:DEV.FN"
 *				memory of a GPU whose driver is in the kernel:
 *				of the first one, of /dev/dri/NODE, or of the
 *				one with this PCI address
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
 *	"hip", "hip:NUMBER" or "hip:DOMAIN:BUS:DEV.FN"
 *				memory of an AMD GPU, in the same way (see
 *				HIP_VISIBLE_DEVICES)
 */
FDMABUF_API int fdmabuf_buffer_allocate(const char *what, uint64_t size,
					struct fdmabuf_buffer **buffer);

/*
 * Makes a buffer of a dma-buf that another program or library has allocated. @dmabuf_fd is
 * duplicated and stays the caller's. The CPU accesses the buffer through mmap(2); if the exporter
 * does not support mmap(2), bounce and reads of holes fail with -EOPNOTSUPP. Returns -EINVAL if
 * @dmabuf_fd is not a dma-buf.
 */
FDMABUF_API int fdmabuf_buffer_import(int dmabuf_fd, struct fdmabuf_buffer **buffer);

/*
 * Makes a buffer of memory that the caller has, for example of a tensor, and that has to stay until
 * the buffer is freed. @address is a host address (MEMORY), a CUdeviceptr (CUDA) or a pointer of
 * hipMalloc() (HIP); the device is the one that the memory is on. Any range inside one allocation
 * is possible. The direct path needs a range of whole pages, because the driver exports no other
 * as a dma-buf: an allocation of its own, or a part that begins and ends at multiples of the page
 * size. Other ranges, and memory that the driver does not export, use bounce.
 *
 * Errors: -EINVAL (@exporter has no addresses), -EFAULT (the range is not inside one allocation),
 * and those of fdmabuf_buffer_create().
 */
FDMABUF_API int fdmabuf_buffer_import_address(enum fdmabuf_exporter exporter, uint64_t address,
					      uint64_t size, struct fdmabuf_buffer **buffer);

FDMABUF_API struct fdmabuf_buffer *fdmabuf_buffer_ref(struct fdmabuf_buffer *buffer);
FDMABUF_API void fdmabuf_buffer_free(struct fdmabuf_buffer *buffer);

FDMABUF_API uint64_t fdmabuf_buffer_size(const struct fdmabuf_buffer *buffer);

/*
 * Returns the dma-buf descriptor, or -1 if there is none. The buffer closes the descriptor when it
 * is freed; use dup(2) to keep one.
 */
FDMABUF_API int fdmabuf_buffer_fd(const struct fdmabuf_buffer *buffer);

/*
 * Returns the address of the memory in the device's own address space (cuda: a CUdeviceptr, valid
 * until the buffer is freed), or 0 if the exporter has no such address.
 */
FDMABUF_API uint64_t fdmabuf_buffer_device_address(const struct fdmabuf_buffer *buffer);

/*
 * Returns the name of the exporter: "memory", "udmabuf", "heap", "drm", "vfio", "cuda", "hip" or
 * "import".
 */
FDMABUF_API const char *fdmabuf_buffer_exporter(const struct fdmabuf_buffer *buffer);

/* What this machine has for buffers. The library sets size, and newer ones may add members. */
struct fdmabuf_exporter_info {
	size_t size;
	enum fdmabuf_exporter exporter;
	const char *name;	/* of the exporter, for example "cuda" */
	const char *what;	/* for fdmabuf_buffer_allocate(), for example "cuda:0" */
	const char *device;	/* name of the device or of its driver, or "" */
	uint64_t bytes;		/* that can be allocated now; 0 = not known */
	bool has_dmabuf;	/* buffers have a dma-buf, which the direct path needs */
	int error;		/* 0, or the negative errno that keeps the caller from it */
	const char *text;	/* why, and what to do; or "" */
};

/*
 * Calls @function for each device of each exporter, and once for each exporter that this machine
 * lacks. The strings are valid during the call. A non-zero value of @function ends the list and is
 * returned; -ENOMEM is the only error. Drivers of GPUs are loaded, but no memory is allocated.
 */
typedef int fdmabuf_exporter_function(void *data, const struct fdmabuf_exporter_info *info);
FDMABUF_API int fdmabuf_exporters(fdmabuf_exporter_function *function, void *data);

/*
 * Copy between host memory and the buffer, and zero a range of the buffer. The CPU does this, with
 * the exporter's cache maintenance, or (cuda) the GPU does. Errors: -EFAULT (the range is outside
 * the buffer), -EOPNOTSUPP (the exporter gives the CPU no access).
 */
FDMABUF_API int fdmabuf_buffer_write(struct fdmabuf_buffer *buffer, uint64_t offset,
				     const void *data, size_t length);
FDMABUF_API int fdmabuf_buffer_read(struct fdmabuf_buffer *buffer, uint64_t offset,
				    void *data, size_t length);
FDMABUF_API int fdmabuf_buffer_zero(struct fdmabuf_buffer *buffer, uint64_t offset,
				    uint64_t length);

/* ------------------------------------------------------------------ queues */

enum fdmabuf_path {
	FDMABUF_AUTO,		/* direct if possible, else direct I/O, else bounce */
	FDMABUF_DIRECT,		/* direct, or fail: the CPU copies no byte of the file */
	FDMABUF_BOUNCE,		/* bounce, even if direct is possible */
	FDMABUF_DIRECT_IO,	/* as a result only: direct I/O to the pages of the buffer, without
				 * a token and without a copy (memory, udmabuf) */
};

/* Why a range, or a part of it, is not direct. */
enum fdmabuf_reason {
	FDMABUF_REASON_NONE,		/* the whole range is direct */
	FDMABUF_REASON_ASKED,		/* the caller asked for bounce */
	FDMABUF_REASON_NO_RING,		/* io_uring is not available */
	FDMABUF_REASON_NO_DMABUF,	/* ordinary memory, or the exporter gave no dma-buf */
	FDMABUF_REASON_NOT_DIRECT,	/* the file cannot be opened with O_DIRECT */
	FDMABUF_REASON_KERNEL,		/* the kernel has no dma-buf tokens */
	FDMABUF_REASON_UNSUPPORTED,	/* filesystem, FUSE server or device has no tokens */
	FDMABUF_REASON_REFUSED,		/* the broker refused the token, or this direction */
	FDMABUF_REASON_REVOKED,		/* the broker revoked the token and gave no new one */
	FDMABUF_REASON_FAILED,		/* the registration failed: see the text */
	FDMABUF_REASON_UNALIGNED,	/* the offsets in file and buffer differ modulo the block
					 * size */
	FDMABUF_REASON_PARTIAL_BLOCK,	/* the range begins or ends in the middle of a block: this
					 * part of it is copied */
	FDMABUF_REASON_UNPROVEN,	/* direct requests succeeded, and moved other bytes */
};

/*
 * A direct request that succeeds is no proof that its bytes are in the memory that the GPU sees:
 * drivers, IOMMUs and switches have been seen to lose them. So a queue proves the direct path from
 * the device of a file to the device of a buffer, once per process and direction, before it moves
 * anything else by it.
 *
 * For a read, at least eight blocks of the ranges, spread over the buffer, are filled with other
 * bytes than the file has, read directly, and compared with what O_DIRECT reads into host memory.
 * For a write, at least eight blocks of the ranges are written directly and read back. No other
 * bytes than the caller's are ever written to a file. Later reads are watched: a mark in some of
 * their blocks, put there before the request, must be gone afterwards.
 *
 * A path that fails is not used again by this process: there is one warning, which names devices
 * and exporter, what has not finished moves again by bounce (FDMABUF_REASON_UNPROVEN), or with
 * FDMABUF_DIRECT fails with -EIO.
 */
enum fdmabuf_proof {
	FDMABUF_PROOF_ONCE,	/* per process, devices and direction */
	FDMABUF_PROOF_ALWAYS,	/* for each file and buffer of a queue as well */
	FDMABUF_PROOF_NEVER,
};

/* What is known of the direct path of a range. */
enum fdmabuf_proven {
	FDMABUF_NOT_DIRECT,	/* the range is not direct */
	FDMABUF_PROVEN,
	FDMABUF_UNPROVABLE,	/* nobody but the device can look into the buffer */
	FDMABUF_NOT_PROVEN,	/* FDMABUF_PROOF_NEVER, or fewer than eight blocks so far */
	FDMABUF_DISPROVED,	/* the path lost bytes: see FDMABUF_REASON_UNPROVEN */
};

/* A zero in any member but size stands for its default. */
struct fdmabuf_queue_options {
	size_t size;		/* sizeof(struct fdmabuf_queue_options) */
	enum fdmabuf_path path;
	uint32_t depth;		/* requests in flight, 1 to FDMABUF_DEPTH_MAX; 0 = 16 */
	uint32_t chunk;		/* largest request in bytes, a multiple of 4096 up to
				 * FDMABUF_CHUNK_MAX; 0 = 4 MiB, which is a multiple of the largest
				 * command of any common device */
	uint32_t mount_wait;	/* ms that a transfer waits for a new mount after the FUSE server
				 * has ended, up to FDMABUF_MOUNT_WAIT_MAX; 0 = 10 s;
				 * FDMABUF_MOUNT_WAIT_NONE = do not wait */
	uint32_t tokens;	/* kept at most, 1 to FDMABUF_TOKENS_MAX; 0 = 1024 */
	enum fdmabuf_proof proof;
	uint32_t copy_threads;	/* that copy for bounce at most, up to FDMABUF_COPY_THREADS_MAX;
				 * 0 = as many as help; FDMABUF_COPY_THREADS_NONE = the thread
				 * that uses the queue copies */
};

#define FDMABUF_DEPTH_MAX 256u
#define FDMABUF_CHUNK_MAX (1u << 30)		/* bytes: 1 GiB */
#define FDMABUF_MOUNT_WAIT_MAX 3600000u		/* ms: one hour */
#define FDMABUF_MOUNT_WAIT_NONE UINT32_MAX
#define FDMABUF_TOKENS_MAX 16383u
#define FDMABUF_COPY_THREADS_MAX 256u
#define FDMABUF_COPY_THREADS_NONE UINT32_MAX

/*
 * Opens a queue: one io_uring, and at most 16 MiB of host memory for bounce and threads that copy,
 * all of which are made when they are needed. The threads block all signals. @options may be NULL.
 * fdmabuf_queue_close() cancels what has not finished, waits until no request is in flight, and
 * ends the tokens; unfinished transfers have then finished with -ECANCELED, and still have to be
 * freed.
 *
 * A queue makes a token when a file and a buffer first meet, and keeps it for later transfers. If
 * @tokens are kept already, or the broker allows no more, it gives up the one that was used least
 * recently. Asking the broker is synchronous: fdmabuf_submit() and the functions that wait may
 * block until the broker has answered, for 30 s at most.
 */
FDMABUF_API int fdmabuf_queue_open(const struct fdmabuf_queue_options *options,
				   struct fdmabuf_queue **queue);
FDMABUF_API void fdmabuf_queue_close(struct fdmabuf_queue *queue);

/* --------------------------------------------------------------- transfers */

/* A range of a file and a range of a buffer, both of @length bytes. */
struct fdmabuf_range {
	struct fdmabuf_file *file;
	uint64_t file_offset;
	struct fdmabuf_buffer *buffer;
	uint64_t buffer_offset;
	uint64_t length;
};

enum fdmabuf_direction {
	FDMABUF_READ,		/* from files to buffers */
	FDMABUF_WRITE,		/* from buffers to files */
};

/*
 * Flags of an operation.
 *
 * FDMABUF_WHOLE_BLOCKS (reads): the read may overwrite the rest of the first and of the last block
 * of each range in the buffer, with the bytes that the file has there, or with any bytes after the
 * end of the file. Partial blocks are then read directly as well, unless a block of the buffer has
 * bytes of ranges from different files, or from different places of a file.
 *
 * FDMABUF_SYNC (writes): the transfer has finished when the bytes are durable, as after
 * fdatasync(2).
 */
#define FDMABUF_WHOLE_BLOCKS 1u
#define FDMABUF_SYNC 2u

enum fdmabuf_state {
	FDMABUF_RUNNING,
	FDMABUF_WAITING,	/* for a new mount, at least one of the files */
	FDMABUF_CANCELLING,	/* waits for what the device has */
	FDMABUF_FINISHED,
};

/* What a progress function is told. The library sets size, and newer ones may add members. */
struct fdmabuf_progress {
	size_t size;
	struct fdmabuf_transfer *transfer;
	enum fdmabuf_state state;
	uint32_t in_flight;	/* requests */
	uint64_t done, total;	/* bytes */
};

/*
 * Is called in the thread that waits for or polls the queue: after requests have completed, after a
 * signal, while a thread waits every 100 ms even if nothing completes, and once in the end, with
 * FDMABUF_FINISHED. If it returns non-zero before that, the transfer is cancelled. The function
 * must not call other functions on the queue or its transfers.
 */
typedef int fdmabuf_progress_function(void *data, const struct fdmabuf_progress *progress);

/* What is to be done. Zeros in the optional members mean none. */
struct fdmabuf_operation {
	size_t size;		/* sizeof(struct fdmabuf_operation) */
	enum fdmabuf_direction direction;
	unsigned flags;		/* optional */
	const struct fdmabuf_range *ranges;	/* copied: need not outlive the call */
	size_t count;		/* of ranges */
	fdmabuf_progress_function *progress;	/* optional */
	void *data;		/* optional: for progress, and for fdmabuf_transfer_data() */
};

/*
 * Starts an operation, and returns before it has finished. Its requests are sent to the device here
 * and in the functions that poll or wait, as many at a time as the queue's depth. The ranges may be
 * in any order, and are joined where they are contiguous in the file. If two ranges of a write
 * overlap in a file, either one's bytes are there afterwards.
 *
 * Bytes of a buffer outside the ranges do not change, so the CPU copies the partial blocks at both
 * ends of a range, unless FDMABUF_WHOLE_BLOCKS allows more. In the file, bytes outside the ranges
 * never change. Offsets in file and buffer must be equal modulo the block size, else the whole
 * range is copied. With FDMABUF_DIRECT, an operation that needs a copy fails with -EINVAL here.
 *
 * Holes of a file are read as zeros. A read ends at the end of the file, without an error. A write
 * makes the file larger, never smaller.
 *
 * Errors of this function: -EINVAL, -EFAULT (a range is outside its buffer), -EBADF (the file is
 * not open for this direction), -EOPNOTSUPP (neither path is possible), -ENOMEM, -ECHILD (after
 * fork), and with FDMABUF_DIRECT what keeps the file or the broker from giving a token. All others
 * are the transfer's.
 */
FDMABUF_API int fdmabuf_submit(struct fdmabuf_queue *queue,
			       const struct fdmabuf_operation *operation,
			       struct fdmabuf_transfer **transfer);

/*
 * Waits until the transfer has finished. Returns 0, or -ETIMEDOUT after @timeout ms; -1 waits for
 * ever. Other transfers of the queue make progress meanwhile.
 */
FDMABUF_API int fdmabuf_transfer_wait(struct fdmabuf_transfer *transfer, int timeout);

/*
 * Cancels the transfer: no further request is sent, and those that can be taken back are. Then
 * waits, as fdmabuf_transfer_wait() does, for what the device has; the block layer's time-out ends
 * a request of a device that does not answer. The transfer has then finished with -ECANCELED,
 * unless it had finished before. A @timeout of 0 only asks.
 */
FDMABUF_API int fdmabuf_transfer_cancel(struct fdmabuf_transfer *transfer, int timeout);

FDMABUF_API enum fdmabuf_state fdmabuf_transfer_state(const struct fdmabuf_transfer *transfer);

/*
 * Returns the number of bytes that a transfer has moved, which is less than those of its ranges
 * only if a read met the end of a file. Returns the negative errno that ended it, or -EAGAIN if it
 * has not finished. The text for the error is fdmabuf_transfer_error(), or "" without an error.
 *
 * Errors, beside those of filesystem and device (-EIO, -ENOSPC, -EDQUOT, ...): -EIO (with
 * FDMABUF_DIRECT, the direct path lost bytes: see enum fdmabuf_proof), -ESTALE (with
 * FDMABUF_DIRECT, the token has ended and there is no new one; or the mount has returned with
 * another file, or with a changed file), -ENOTCONN (the FUSE server has ended and the mount has not
 * returned), -ECANCELED. After an error fdmabuf_transfer_result() says how far each range has got,
 * and any other part of the destination may have been written as well. No request is in flight in a
 * transfer that has finished, so the memory can be used for something else.
 */
FDMABUF_API int64_t fdmabuf_transfer_bytes(const struct fdmabuf_transfer *transfer);
FDMABUF_API const char *fdmabuf_transfer_error(const struct fdmabuf_transfer *transfer);

/* What has become of one range, or would become of it. */
struct fdmabuf_result {
	size_t size;			/* set by the caller: sizeof(struct fdmabuf_result) */
	uint64_t done;			/* bytes from the begin of the range that have moved */
	int error;			/* 0, or the negative errno that kept the rest from it */
	enum fdmabuf_path path;		/* FDMABUF_DIRECT, FDMABUF_DIRECT_IO or FDMABUF_BOUNCE */
	enum fdmabuf_reason reason;	/* why it is not direct, or a part of it is not */
	char text[256];			/* the reason as a text, or "" */
	enum fdmabuf_proven proven;
};

/* Gives the result of range @index, as numbered by the caller, of a transfer that has finished. */
FDMABUF_API int fdmabuf_transfer_result(const struct fdmabuf_transfer *transfer, size_t index,
					struct fdmabuf_result *result);

/* Returns the data of the operation. */
FDMABUF_API void *fdmabuf_transfer_data(const struct fdmabuf_transfer *transfer);

/* Frees a transfer, after cancelling it and waiting for it if it has not finished. */
FDMABUF_API void fdmabuf_transfer_free(struct fdmabuf_transfer *transfer);

/*
 * Do an operation from the begin to the end. Return what fdmabuf_transfer_bytes() does, or the
 * error of fdmabuf_submit().
 */
FDMABUF_API int64_t fdmabuf_run(struct fdmabuf_queue *queue,
				const struct fdmabuf_operation *operation);
FDMABUF_API int64_t fdmabuf_read(struct fdmabuf_queue *queue, const struct fdmabuf_range *ranges,
				 size_t count, unsigned flags);
FDMABUF_API int64_t fdmabuf_write(struct fdmabuf_queue *queue, const struct fdmabuf_range *ranges,
				  size_t count, unsigned flags);

/*
 * Says which path a range would take, and makes the token that the direct path needs. @result->done
 * and @result->error are 0. Returns 0 for all paths. Errors are those of fdmabuf_submit(), and
 * -ENOTCONN if the FUSE server of the file has ended.
 */
FDMABUF_API int fdmabuf_queue_check(struct fdmabuf_queue *queue, enum fdmabuf_direction direction,
				    const struct fdmabuf_range *range, unsigned flags,
				    struct fdmabuf_result *result);

/* ------------------------------------------------------------- event loops */

/*
 * Returns a descriptor that is readable, for poll(2) and the like, whenever fdmabuf_queue_poll()
 * has something to do. It stays the queue's.
 */
FDMABUF_API int fdmabuf_queue_fd(struct fdmabuf_queue *queue);

/*
 * Handles what has completed and sends what can be sent, without waiting. fdmabuf_queue_wait()
 * waits first, until a transfer has finished, or for @timeout ms (-1: for ever). Both return the
 * number of transfers that have finished and were not returned by fdmabuf_queue_next() yet.
 */
FDMABUF_API int fdmabuf_queue_poll(struct fdmabuf_queue *queue);
FDMABUF_API int fdmabuf_queue_wait(struct fdmabuf_queue *queue, int timeout);

/* Returns a transfer that has finished, each one once, or NULL. The caller frees it. */
FDMABUF_API struct fdmabuf_transfer *fdmabuf_queue_next(struct fdmabuf_queue *queue);

/* Totals over all transfers of the queue. */
struct fdmabuf_counters {
	size_t size;		/* set by the caller: sizeof(struct fdmabuf_counters) */
	uint64_t bytes_direct;	/* moved by DMA between file and buffer */
	uint64_t bytes_copied;	/* between buffer and bounce memory, or from the page cache */
	uint64_t bytes_zeroed;	/* holes that were zeroed, not read, by direct reads */
	uint64_t requests;	/* submitted to the kernel */
	uint64_t retries;	/* of these, submitted again: EAGAIN, short, new token */
	uint64_t tokens;	/* registrations */
	uint64_t tokens_kept;	/* now */
	uint64_t reopens;	/* times that a file was opened again on a new mount */
	uint64_t bytes_direct_io;	/* moved by direct I/O to the pages of a buffer */
	uint64_t bytes_cached;	/* of those copied: from the page cache */
	uint64_t bytes_proven;	/* compared, to prove direct paths */
};
FDMABUF_API int fdmabuf_queue_counters(const struct fdmabuf_queue *queue,
				       struct fdmabuf_counters *counters);

#ifdef __cplusplus
}
#endif
#endif
