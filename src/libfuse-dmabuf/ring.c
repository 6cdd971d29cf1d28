/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The io_uring of a channel, and the registration of dma-bufs, which liburing lacks. */
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "internal.h"

/* The kernel's extended buffer update. No released header has these numbers. */
#define RSRC_UPDATE_EXTENDED (1u << 1)
#define REGBUF_TYPE_DMABUF 2

struct regbuf_desc {
	uint32_t type;
	uint32_t flags;
	uint64_t size;
	uint64_t uaddr;
	int32_t dmabuf_fd;
	int32_t target_fd;
	uint64_t reserved[6];
};
_Static_assert(sizeof(struct regbuf_desc) == 80, "the kernel takes descriptors of 80 bytes");

/* The kernel's struct io_uring_rsrc_update2, whose second word released headers call "resv". */
struct rsrc_update {
	uint32_t offset;
	uint32_t flags;
	uint64_t data;
	uint64_t tags;
	uint32_t nr;
	uint32_t reserved;
};

enum { SLOT_TOKEN, SLOT_HOST, SLOTS };

struct ring {
	struct io_uring uring;
	bool has_host;		/* host memory is registered in SLOT_HOST */
};

int ring_open(unsigned depth, struct ring **result)
{
	struct ring *ring = calloc(1, sizeof(*ring));
	int ret;

	if (!ring)
		return -ENOMEM;
	ret = io_uring_queue_init(depth, &ring->uring, IORING_SETUP_COOP_TASKRUN);
	if (ret) {
		free(ring);
		return ret;
	}
	ret = io_uring_register_buffers_sparse(&ring->uring, SLOTS);
	if (ret) {
		io_uring_queue_exit(&ring->uring);
		free(ring);
		return ret;
	}
	*result = ring;
	return 0;
}

/*
 * The kernel frees a ring in the background. The buffer table is emptied first, so that the token
 * has ended on return.
 */
void ring_close(struct ring *ring)
{
	if (!ring)
		return;
	io_uring_unregister_buffers(&ring->uring);
	io_uring_queue_exit(&ring->uring);
	free(ring);
}

static int register_dmabuf(struct ring *ring, int dmabuf_fd, int file_fd)
{
	struct regbuf_desc descriptor = {
		.type = REGBUF_TYPE_DMABUF,
		.dmabuf_fd = dmabuf_fd,
		.target_fd = file_fd,
	};
	struct rsrc_update update = {
		.offset = SLOT_TOKEN,
		.flags = RSRC_UPDATE_EXTENDED,
		.data = (uintptr_t)&descriptor,
		.nr = 1,
	};
	int ret = syscall(__NR_io_uring_register, ring->uring.ring_fd,
			  IORING_REGISTER_BUFFERS_UPDATE, &update, sizeof(update));

	if (ret < 0)
		return -errno;
	return ret == 1 ? 0 : -EIO;
}

/*
 * The descriptors are invalid on purpose: a kernel that supports the flag refuses the descriptors
 * (EBADF), any other kernel the flag (EINVAL).
 */
bool ring_has_tokens(struct ring *ring)
{
	return register_dmabuf(ring, -1, -1) == -EBADF;
}

int ring_register_token(struct ring *ring, int dmabuf_fd, int file_fd)
{
	return register_dmabuf(ring, dmabuf_fd, file_fd);
}

int ring_register_host(struct ring *ring, void *memory, size_t length)
{
	struct iovec vector = { .iov_base = memory, .iov_len = length };
	__u64 tag = 0;
	int ret = io_uring_register_buffers_update_tag(&ring->uring, SLOT_HOST, &vector, &tag, 1);

	ring->has_host = ret == 1;
	return ret < 0 ? ret : 0;
}

void ring_read_token(struct ring *ring, int fd, uint64_t buffer_offset, uint32_t length,
		     uint64_t file_offset, void *tag)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	io_uring_prep_read_fixed(sqe, fd, (void *)(uintptr_t)buffer_offset, length, file_offset,
				 SLOT_TOKEN);
	io_uring_sqe_set_data(sqe, tag);
}

void ring_read_host(struct ring *ring, int fd, void *memory, uint32_t length, uint64_t file_offset,
		    void *tag)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	if (ring->has_host)
		io_uring_prep_read_fixed(sqe, fd, memory, length, file_offset, SLOT_HOST);
	else
		io_uring_prep_read(sqe, fd, memory, length, file_offset);
	io_uring_sqe_set_data(sqe, tag);
}

int ring_wait(struct ring *ring)
{
	int ret = io_uring_submit_and_wait(&ring->uring, 1);

	return ret < 0 ? ret : 0;
}

bool ring_next(struct ring *ring, void **tag, int *result)
{
	struct io_uring_cqe *cqe;

	if (io_uring_peek_cqe(&ring->uring, &cqe))
		return false;
	*tag = io_uring_cqe_get_data(cqe);
	*result = cqe->res;
	io_uring_cqe_seen(&ring->uring, cqe);
	return true;
}
