/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Declarations that the source files of the library share; programs see include/fuse-dmabuf.h. */
#ifndef FDMABUF_INTERNAL_H
#define FDMABUF_INTERNAL_H

#include <errno.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "fuse-dmabuf.h"

/* Sets the text that fdmabuf_error() returns, and returns -@error. */
int fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline uint64_t align_down(uint64_t value, uint64_t power_of_two)
{
	return value & ~(power_of_two - 1);
}

static inline uint64_t align_up(uint64_t value, uint64_t power_of_two)
{
	return align_down(value + power_of_two - 1, power_of_two);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* For __attribute__((cleanup(close_fd))): closes a descriptor when its variable ends. */
static inline void close_fd(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

/* ------------------------------------------------------------ filesystem.c */

bool is_on_fuse(int fd);

/*
 * Returns true if the server of the FUSE mount that @fd is on has ended. Each call is a request to
 * the server, too slow for the read path.
 */
bool server_has_ended(int fd);

/* ------------------------------------------------------- file.c, file-reopen.c */

/* In bytes. NVMe and the block layer have no smaller blocks. */
#define BLOCK_SIZE_MIN 512u

struct fdmabuf_file {
	char *path;		/* as the caller named the file, for messages */
	int fd;			/* open with O_DIRECT if is_direct */
	int plain_fd;		/* open without O_DIRECT; -1 until needed */
	bool is_direct;
	bool is_fuse;
	uint32_t block_size;

	/*
	 * Where file_reopen() opens the file after its FUSE server has ended: an absolute path
	 * without symbolic links. NULL if the file is not on FUSE or has no name.
	 */
	char *real_path;
	unsigned generation;	/* number of times that file_reopen() has succeeded */
	dev_t device;
	ino_t inode;
	uint64_t size;		/* size and mtime are those of the last successful fstat(2) */
	struct timespec mtime;
};

/* Returns the descriptor without O_DIRECT, which stays the file's, or a negative errno. */
int file_plain_fd(struct fdmabuf_file *file);

/*
 * Records size and modification time, which file_reopen() will compare. Returns the size, as
 * fdmabuf_file_size() does.
 */
uint64_t file_refresh(struct fdmabuf_file *file);

/* Returns true if the file is on a FUSE mount whose server has ended. */
bool file_server_has_ended(const struct fdmabuf_file *file);

/*
 * Returns true if @error (a positive errno of a failed request) means that the file's FUSE server
 * has ended.
 */
bool file_is_lost(const struct fdmabuf_file *file, int error);

/*
 * Opens the file again on a new mount, after its FUSE server has ended, and replaces the
 * descriptors. Returns -EAGAIN if the mount is not there yet: call again later. Any other error is
 * final: the path leads to another file, or the file has changed.
 */
int file_reopen(struct fdmabuf_file *file);

/* --------------------------------------------------------------- buffer.c and the exporters */

struct exporter {
	const char *name;
	/*
	 * Sets the buffer's size, and dmabuf_fd if there is a dma-buf. @argument is the text after
	 * "name:", or NULL if there is none.
	 */
	int (*allocate)(struct fdmabuf_buffer *buffer, const char *argument, uint64_t size);
	/*
	 * Maps the whole buffer for the CPU and sets buffer->map. NULL if write, read and zero work
	 * without this call.
	 */
	int (*map)(struct fdmabuf_buffer *buffer);
	/* Frees all that allocate and map made, also after either has failed. */
	void (*release)(struct fdmabuf_buffer *buffer);

	/* Copy between host memory and a range of the buffer. The copy is complete on return. */
	int (*write)(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data,
		     uint64_t length);
	int (*read)(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length);
	int (*zero)(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length);

	/* Optional: pins host memory, to make copies from it faster, and unpins it. */
	bool (*pin_host)(struct fdmabuf_buffer *buffer, void *memory, size_t length);
	void (*unpin_host)(struct fdmabuf_buffer *buffer, void *memory);
	/* Optional: makes DMA by other devices visible to the device that owns the buffer. */
	int (*flush)(struct fdmabuf_buffer *buffer);
};

struct fdmabuf_buffer {
	const struct exporter *exporter;
	uint64_t size;
	uint64_t address;	/* in the device's own address space; 0 if there is none */
	int dmabuf_fd;		/* -1 if there is no dma-buf */
	char no_dmabuf_reason[160];	/* why the exporter gave no dma-buf, or "" */
	unsigned char *map;	/* NULL until the CPU needs access */
	struct vfio_device *vfio;
	struct cuda_memory *cuda;
};

extern const struct exporter exporter_memory;
extern const struct exporter exporter_udmabuf;
extern const struct exporter exporter_vfio;
extern const struct exporter exporter_cuda;
extern const struct exporter exporter_import;

/* Implement map and release for exporters whose dma-buf supports mmap(2). */
int dmabuf_map(struct fdmabuf_buffer *buffer);
void dmabuf_release(struct fdmabuf_buffer *buffer);

/*
 * Prepares the buffer for write, read and zero. Returns a negative errno if the exporter gives the
 * CPU no access.
 */
int buffer_prepare_copy(struct fdmabuf_buffer *buffer);

/* -------------------------------------------------------------- cpu-copy.c */

/*
 * Implement write, read and zero for exporters with a map. host_*() are for host memory, and do the
 * exporter's cache maintenance; io_*() are for device memory, and use aligned words only.
 */
int host_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data, uint64_t length);
int host_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length);
int host_zero(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length);
int io_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data, uint64_t length);
int io_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length);
int io_zero(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length);

/* ------------------------------------------------------------------ ring.c */

/* An io_uring whose buffer table has two slots: one for the token and one for host memory. */
struct ring;

/* Returns 0 or a negative errno, and sets no text. ring_close() frees the ring. */
int ring_open(unsigned depth, struct ring **ring);
void ring_close(struct ring *ring);

/* Returns true if the kernel supports the registration of dma-bufs. */
bool ring_has_tokens(struct ring *ring);

/* Registers the dma-buf for reads of @file_fd. The new token replaces an earlier one. */
int ring_register_token(struct ring *ring, int dmabuf_fd, int file_fd);

/*
 * Registers host memory for ring_read_host(). The registration is optional: it saves pinning the
 * pages in each request.
 */
int ring_register_host(struct ring *ring, void *memory, size_t length);

/*
 * Queue one read, whose completion carries @tag. Caller keeps at most as many requests in flight as
 * ring_open()'s depth.
 */
void ring_read_token(struct ring *ring, int fd, uint64_t buffer_offset, uint32_t length,
		     uint64_t file_offset, void *tag);
void ring_read_host(struct ring *ring, int fd, void *memory, uint32_t length, uint64_t file_offset,
		    void *tag);

/*
 * Submits the queued requests and waits for at least one completion. Returns -EINTR if a signal
 * interrupted the wait.
 */
int ring_wait(struct ring *ring);

/* Takes one completion from the ring. Returns false if there is none. */
bool ring_next(struct ring *ring, void **tag, int *result);

/* --------------------------------------------------------- channel.c, read*.c */

struct request {
	uint64_t position, end;		/* the range still to be read, as offsets in the file */
	enum { REQUEST_FREE, REQUEST_READY, REQUEST_IN_FLIGHT } state;
	unsigned tries;			/* in a row without progress */
	bool was_submitted;		/* at least once */
	unsigned char *host;		/* bounce: this request's part of the host memory */
};

struct fdmabuf_channel {
	struct fdmabuf_file *file;
	struct fdmabuf_buffer *buffer;
	enum fdmabuf_path wanted_path;	/* of the options */
	enum fdmabuf_path path;		/* in use: direct or bounce */
	enum fdmabuf_reason reason;
	char reason_text[256];

	unsigned generation;		/* file->generation when the token was made */
	uint32_t mount_wait;		/* ms; 0 = do not wait */
	bool is_waiting;

	struct ring *ring;		/* NULL if io_uring is not available: copy with pread(2) */
	uint32_t depth, chunk;
	struct request *requests;	/* array of depth elements */

	unsigned char *host;		/* bounce memory; NULL until needed */
	bool host_is_pinned;		/* by the exporter's pin_host */
	uint32_t host_depth, host_chunk;
	bool bounce_is_plain;		/* bounce reads use plain_fd, without O_DIRECT */

	fdmabuf_progress *progress;
	void *progress_argument;
	struct fdmabuf_counters counters;
};

/*
 * Registers a token for the channel's file and buffer. Returns a negative errno, which
 * FDMABUF_DIRECT fails with, if a token is impossible or the registration failed, and then sets the
 * channel's reason.
 */
int channel_register(struct fdmabuf_channel *channel);

void channel_set_reason(struct fdmabuf_channel *channel, enum fdmabuf_reason reason,
			const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Allocates the bounce memory unless the channel has it already. */
int channel_allocate_host(struct fdmabuf_channel *channel);

#endif
