/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The io_uring of a queue, and the registration of dma-bufs, which liburing lacks. */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "ring/ring.h"
#include "ring/synchronous.h"

/* The kernel's extended buffer update. No released header has these numbers. */
#define RSRC_UPDATE_EXTENDED (1u << 1)
#define REGBUF_TYPE_DMABUF 2

/* Linux 6.15 and later; headers of distributions lag behind. */
#define OP_READV_FIXED 60
#define OP_WRITEV_FIXED 61

/* ms between two looks for completions of a ring that cannot wait any more. */
#define BROKEN_INTERVAL 10

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

struct ring {
	struct synchronous *synchronous;	/* NULL if there is an io_uring */
	struct io_uring uring;
	unsigned depth;		/* commands */
	bool has_host;		/* host memory is registered in RING_SLOT_HOST */
	bool is_watching;	/* a poll of ring_wait() is queued; its tag is the ring */
	int broken;		/* the negative errno that ended all submissions, or 0 */
};

static int open_uring(struct ring *ring, unsigned depth, unsigned tokens)
{
	/* Twice, so that there is room to cancel each command. */
	int ret = io_uring_queue_init(2 * depth, &ring->uring, IORING_SETUP_COOP_TASKRUN);

	if (ret)
		return ret;
	ret = io_uring_register_buffers_sparse(&ring->uring, RING_SLOT_HOST + 1 + tokens);
	if (!ret)
		ret = io_uring_ring_dontfork(&ring->uring);
	if (ret)
		io_uring_queue_exit(&ring->uring);
	return ret;
}

int ring_open(unsigned depth, unsigned tokens, struct ring **result, int *reason)
{
	struct ring *ring = calloc(1, sizeof(*ring));
	int ret;

	if (!ring)
		return -ENOMEM;
	ring->depth = depth;
	ret = open_uring(ring, depth, tokens);
	/* Without memory or descriptors the caller does better with an error. */
	if (ret && ret != -ENOMEM && ret != -EMFILE && ret != -ENFILE) {
		*reason = -ret;
		ring->synchronous = synchronous_open(depth);
		ret = ring->synchronous ? 0 : -errno;
	}
	if (ret) {
		free(ring);
		return ret;
	}
	*result = ring;
	return 0;
}

/*
 * The kernel frees a ring in the background. The buffer table is emptied first, so that the tokens
 * have ended on return.
 */
void ring_close(struct ring *ring)
{
	if (!ring)
		return;
	if (ring->synchronous) {
		synchronous_close(ring->synchronous);
	} else {
		io_uring_unregister_buffers(&ring->uring);
		io_uring_queue_exit(&ring->uring);
	}
	free(ring);
}

void ring_forget(struct ring *ring)
{
	if (!ring)
		return;
	/* The memory of the ring is not there in a child: only the descriptor is. */
	if (ring->synchronous)
		synchronous_close(ring->synchronous);
	else
		close(ring->uring.ring_fd);
	free(ring);
}

bool ring_is_uring(const struct ring *ring)
{
	return !ring->synchronous;
}

static int register_dmabuf(struct ring *ring, unsigned slot, int dmabuf_fd, int file_fd)
{
	struct regbuf_desc descriptor = {
		.type = REGBUF_TYPE_DMABUF,
		.dmabuf_fd = dmabuf_fd,
		.target_fd = file_fd,
	};
	struct rsrc_update update = {
		.offset = slot,
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
	return !ring->synchronous && register_dmabuf(ring, 1, -1, -1) == -EBADF;
}

int ring_register_token(struct ring *ring, unsigned slot, int dmabuf_fd, int file_fd)
{
	return register_dmabuf(ring, slot, dmabuf_fd, file_fd);
}

/* Returns 0 or a negative errno. An empty vector empties the slot. */
static int update_slot(struct ring *ring, unsigned slot, struct iovec vector)
{
	__u64 tag = 0;
	int ret = io_uring_register_buffers_update_tag(&ring->uring, slot, &vector, &tag, 1);

	return ret == 1 ? 0 : ret < 0 ? ret : -EIO;
}

void ring_end_token(struct ring *ring, unsigned slot)
{
	update_slot(ring, slot, (struct iovec){ 0 });
}

int ring_register_host(struct ring *ring, void *memory, size_t length)
{
	int ret;

	if (ring->synchronous)
		return 0;
	ret = update_slot(ring, RING_SLOT_HOST,
			  (struct iovec){ .iov_base = memory, .iov_len = length });
	ring->has_host = !ret;
	return ret;
}

static void prepare_vector(struct io_uring_sqe *sqe, const struct ring_command *command)
{
	bool writes = command->kind == RING_WRITE;

	if (command->slot == RING_SLOT_NONE) {
		io_uring_prep_rw(writes ? IORING_OP_WRITEV : IORING_OP_READV, sqe, command->fd,
				 command->pieces, command->count, command->file_offset);
		return;
	}
	io_uring_prep_rw(writes ? OP_WRITEV_FIXED : OP_READV_FIXED, sqe, command->fd,
			 command->pieces, command->count, command->file_offset);
	sqe->buf_index = command->slot;
}

static void prepare_one(struct ring *ring, struct io_uring_sqe *sqe,
			const struct ring_command *command)
{
	const struct iovec *piece = command->pieces;
	bool is_fixed = command->slot == RING_SLOT_HOST ? ring->has_host :
							  command->slot != RING_SLOT_NONE;
	bool writes = command->kind == RING_WRITE;

	if (is_fixed && writes)
		io_uring_prep_write_fixed(sqe, command->fd, piece->iov_base, piece->iov_len,
					  command->file_offset, command->slot);
	else if (is_fixed)
		io_uring_prep_read_fixed(sqe, command->fd, piece->iov_base, piece->iov_len,
					 command->file_offset, command->slot);
	else if (writes)
		io_uring_prep_write(sqe, command->fd, piece->iov_base, piece->iov_len,
				    command->file_offset);
	else
		io_uring_prep_read(sqe, command->fd, piece->iov_base, piece->iov_len,
				   command->file_offset);
}

void ring_queue(struct ring *ring, const struct ring_command *command, void *tag)
{
	struct io_uring_sqe *sqe;

	if (ring->synchronous) {
		synchronous_queue(ring->synchronous, command, tag);
		return;
	}
	/* There is one, because ring_cancel() leaves @depth of them. */
	sqe = io_uring_get_sqe(&ring->uring);
	if (command->kind == RING_SYNC)
		io_uring_prep_fsync(sqe, command->fd, IORING_FSYNC_DATASYNC);
	else if (command->count > 1)
		prepare_vector(sqe, command);
	else
		prepare_one(ring, sqe, command);
	io_uring_sqe_set_data(sqe, tag);
}

/*
 * Returns an entry for what is no command, or NULL if there are only as many as all commands
 * together need.
 */
static struct io_uring_sqe *get_spare_entry(struct ring *ring)
{
	bool is_spare = io_uring_sq_space_left(&ring->uring) > ring->depth;

	if (!is_spare && !ring_submit(ring))
		is_spare = io_uring_sq_space_left(&ring->uring) > ring->depth;
	return is_spare ? io_uring_get_sqe(&ring->uring) : NULL;
}

void ring_cancel(struct ring *ring, void *tag)
{
	struct io_uring_sqe *sqe;

	if (ring->synchronous || ring->broken)
		return;
	/* Without room the command goes on, and its result is waited for. */
	sqe = get_spare_entry(ring);
	if (!sqe)
		return;
	io_uring_prep_cancel(sqe, tag, 0);
	io_uring_sqe_set_data(sqe, NULL);
}

/* Returns what ring_submit() and ring_wait() do for what io_uring_enter(2) returned. */
static int check_result(struct ring *ring, int ret)
{
	if (ret >= 0 || ret == -ETIME)
		return 0;
	if (ret != -EINTR && ret != -EAGAIN && ret != -EBUSY)
		ring->broken = ret;
	return ret;
}

int ring_submit(struct ring *ring)
{
	if (ring->synchronous || ring->broken || !io_uring_sq_ready(&ring->uring))
		return ring->broken;
	return check_result(ring, io_uring_submit(&ring->uring));
}

/* The kernel posts completions when the thread returns from any system call. */
static void wait_without_ring(int timeout)
{
	struct timespec interval = { .tv_nsec = BROKEN_INTERVAL * 1000000 };

	if (timeout)
		nanosleep(&interval, NULL);
}

/* Has the ring complete something when @fd is readable. Returns false if it has no room. */
static bool watch(struct ring *ring, int fd)
{
	struct io_uring_sqe *sqe = ring->is_watching ? NULL : get_spare_entry(ring);

	if (!sqe)
		return ring->is_watching;
	io_uring_prep_poll_add(sqe, fd, POLLIN);
	io_uring_sqe_set_data(sqe, ring);
	ring->is_watching = true;
	return true;
}

int ring_wait(struct ring *ring, int timeout, int fd)
{
	struct __kernel_timespec limit = {
		.tv_sec = timeout / 1000,
		.tv_nsec = timeout % 1000 * 1000000ll,
	};
	struct io_uring_cqe *cqe;

	if (ring->synchronous)
		return synchronous_wait(ring->synchronous, timeout, fd);
	if (fd >= 0 && !ring->broken && !watch(ring, fd) && !ring->broken)
		return -EAGAIN;
	if (ring->broken) {
		wait_without_ring(timeout);
		return ring->broken;
	}
	return check_result(ring, io_uring_submit_and_wait_timeout(&ring->uring, &cqe, 1,
							timeout < 0 ? NULL : &limit, NULL));
}

bool ring_next(struct ring *ring, void **tag, int *result)
{
	struct io_uring_cqe *cqe;

	if (ring->synchronous)
		return synchronous_next(ring->synchronous, tag, result);
	for (;;) {
		/* Looks at the memory of the ring only: a broken one has completions, too. */
		if (io_uring_peek_cqe(&ring->uring, &cqe))
			return false;
		*tag = io_uring_cqe_get_data(cqe);
		*result = cqe->res;
		io_uring_cqe_seen(&ring->uring, cqe);
		if (*tag == ring)
			ring->is_watching = false;
		else if (*tag)		/* not of a ring_cancel() */
			return true;
	}
}

bool ring_take_back(struct ring *ring, void **tag)
{
	struct io_uring_sq *sq = &ring->uring.sq;

	while (io_uring_sq_ready(&ring->uring)) {
		*tag = (void *)(uintptr_t)sq->sqes[--sq->sqe_tail & sq->ring_mask].user_data;
		if (*tag == ring)
			ring->is_watching = false;
		else if (*tag)
			return true;
	}
	return false;
}

int ring_fd(const struct ring *ring)
{
	return ring->synchronous ? synchronous_fd(ring->synchronous) : ring->uring.ring_fd;
}
