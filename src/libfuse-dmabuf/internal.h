/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the library share. */
#ifndef FDMABUF_INTERNAL_H
#define FDMABUF_INTERNAL_H

#include <errno.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "fuse-dmabuf.h"

/* Sets fdmabuf_error() and returns -@error. */
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

/* __attribute__((cleanup(close_fd))) for a descriptor of one function. */
static inline void close_fd(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

/* ------------------------------------------------------------ filesystem.c */

bool is_on_fuse(int fd);

/* Whether the server of a descriptor on a FUSE mount is gone. Asks it, so not for where speed counts. */
bool connection_has_ended(int fd);

/* ------------------------------------------------------- file.c, file-return.c */

/* Neither NVMe nor the block layer knows smaller blocks. */
#define BLOCK_SIZE_MIN 512u

struct fdmabuf_file {
	char *path;		/* as the caller named it, for messages */
	int fd;			/* O_DIRECT if is_direct */
	int plain_fd;		/* without O_DIRECT; -1 until needed */
	bool is_direct;
	bool is_fuse;
	uint32_t block_size;

	/* FUSE: absolute path without symbolic links, where to look after the mount has ended. NULL: none. */
	char *home;
	unsigned generation;	/* counts how often it was found there again */
	dev_t device;
	ino_t inode;
	uint64_t size;		/* as last seen, like mtime */
	struct timespec mtime;
};

/* The descriptor without O_DIRECT, or a negative errno. */
int file_plain_fd(struct fdmabuf_file *file);

/* Like fdmabuf_file_size(), and notes what the file looks like now. */
uint64_t file_look(struct fdmabuf_file *file);

/* Whether the FUSE server has ended; and whether @error (positive), which a request gave, comes from that. */
bool file_has_ended(const struct fdmabuf_file *file);
bool file_is_lost(const struct fdmabuf_file *file, int error);

/*
 * Looks whether a file that is lost is there again, on a new mount, and then takes that one's descriptors.
 * -EAGAIN: not yet; any other error: never, because it is another file or has changed.
 */
int file_return(struct fdmabuf_file *file);

/* --------------------------------------------------------------- buffer.c and the exporters */

struct exporter {
	const char *name;
	/* @argument is what follows "name:", NULL if nothing does. Sets dmabuf_fd and size. */
	int (*allocate)(struct fdmabuf_buffer *buffer, const char *argument, uint64_t size);
	/* Lets the CPU reach the whole buffer: sets map. NULL: the copies need no map. */
	int (*map)(struct fdmabuf_buffer *buffer);
	/* Frees what allocate and map made, also after their failure. */
	void (*release)(struct fdmabuf_buffer *buffer);

	/* Copies between host memory and a range of the buffer, done when they return. */
	int (*write)(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data, uint64_t length);
	int (*read)(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length);
	int (*zero)(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length);

	/* Optional: makes copies from this host memory faster, until it is let go. */
	bool (*pin_host)(struct fdmabuf_buffer *buffer, void *memory, size_t length);
	void (*unpin_host)(struct fdmabuf_buffer *buffer, void *memory);
	/* Optional: what other devices have written into the buffer is seen by the buffer's own device after it. */
	int (*flush)(struct fdmabuf_buffer *buffer);
};

struct fdmabuf_buffer {
	const struct exporter *exporter;
	uint64_t size;
	uint64_t address;	/* in the device's own address space; 0: none */
	int dmabuf_fd;		/* -1: none */
	char why_no_dmabuf[160];	/* where there could be one */
	unsigned char *map;	/* NULL until the CPU needs it */
	struct vfio_device *vfio;
	struct cuda_memory *cuda;
};

extern const struct exporter exporter_memory;
extern const struct exporter exporter_udmabuf;
extern const struct exporter exporter_vfio;
extern const struct exporter exporter_cuda;
extern const struct exporter exporter_import;

/* For exporters whose dma-buf can be mapped. */
int dmabuf_map(struct fdmabuf_buffer *buffer);
void dmabuf_release(struct fdmabuf_buffer *buffer);

/* Makes copies possible; fails where the exporter does not let the CPU reach the buffer. */
int buffer_reach(struct fdmabuf_buffer *buffer);

/* -------------------------------------------------------------- cpu-copy.c */

/* For exporters with a map: of the host's memory, or of a device's, which wants aligned words only. */
int host_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data, uint64_t length);
int host_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length);
int host_zero(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length);
int io_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data, uint64_t length);
int io_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length);
int io_zero(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length);

/* ------------------------------------------------------------------ ring.c */

/* One io_uring; its buffer table has one slot for the token and one for host memory. */
struct ring;

int ring_open(unsigned depth, struct ring **ring);
void ring_close(struct ring *ring);

/* Whether the kernel knows dma-buf registrations at all. */
bool ring_has_tokens(struct ring *ring);

/* Registers the dma-buf for reads of @file_fd. Replaces an earlier token. */
int ring_register_token(struct ring *ring, int dmabuf_fd, int file_fd);

/* Registers host memory for ring_read_host(). Optional: it saves pinning pages in each request. */
int ring_register_host(struct ring *ring, void *memory, size_t length);

/* Queue one read; @tag comes back with the result. Never more than the depth in flight. */
void ring_read_token(struct ring *ring, int fd, uint64_t buffer_offset, uint32_t length,
		     uint64_t file_offset, void *tag);
void ring_read_host(struct ring *ring, int fd, void *memory, uint32_t length, uint64_t file_offset,
		    void *tag);

/* Submits what is queued and waits for at least one completion. -EINTR: a signal came. */
int ring_wait(struct ring *ring);

/* Takes one completion; false if there is none. */
bool ring_next(struct ring *ring, void **tag, int *result);

/* --------------------------------------------------------- channel.c, read*.c */

struct request {
	uint64_t position, end;		/* what is still to be read, offsets in the file */
	enum { REQUEST_FREE, REQUEST_READY, REQUEST_FLYING } state;
	unsigned tries;			/* in a row without progress */
	bool submitted;			/* once or more */
	unsigned char *host;		/* bounce: this request's part of the host memory */
};

struct fdmabuf_channel {
	struct fdmabuf_file *file;
	struct fdmabuf_buffer *buffer;
	enum fdmabuf_path wanted, path;
	enum fdmabuf_reason reason;
	char reason_text[256];

	unsigned generation;		/* of the file, when the token was made */
	uint32_t mount_wait;		/* ms; 0: none */
	bool is_waiting;

	struct ring *ring;		/* NULL: io_uring is not available, copy with pread(2) */
	uint32_t depth, chunk;
	struct request *requests;	/* depth of them */

	unsigned char *host;		/* bounce memory; NULL until needed */
	bool host_is_pinned;		/* by the exporter */
	uint32_t host_depth, host_chunk;
	bool bounce_is_plain;		/* bounce reads go without O_DIRECT */

	fdmabuf_progress *progress;
	void *progress_argument;
	struct fdmabuf_counters counters;
};

/* Registers the token if nothing speaks against it; what does becomes the channel's reason. Returns 0
 * or the errno that FDMABUF_DIRECT fails with. */
int channel_register(struct fdmabuf_channel *channel);

void channel_set_reason(struct fdmabuf_channel *channel, enum fdmabuf_reason reason,
			const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Allocates the bounce memory if it is not there yet. */
int channel_need_host(struct fdmabuf_channel *channel);

#endif
