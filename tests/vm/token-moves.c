// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Makes random reads and writes at a queue depth of 64 while the exporter moves the buffer without
 * a pause, and verifies every byte of both.
 *
 * token-moves SEED MOVES RING_FLAGS CONTROL_FD BUFFER_FD FILE BASE
 *
 * CONTROL_FD is /dev/dmabuf-test, BUFFER_FD its buffer of DEPTH blocks. The program uses AREA bytes
 * of FILE from BASE on. Each request has a block of the buffer and a part of the file for itself,
 * so the right content of both is known at any time.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../modules/exporter/dmabuf-test.h"

#define DEPTH		64
#define BLOCK		4096
#define BLOCKS		8		/* blocks of the file for each request */
#define PART		(BLOCKS * BLOCK)
#define AREA		(DEPTH * PART)

struct desc {
	uint32_t type, flags;
	uint64_t size, uaddr;
	int32_t dmabuf_fd, target_fd;
	uint64_t resv[6];
};

struct request {
	bool write;
	unsigned int block;
};

static struct io_uring ring;
static uint8_t *memory, *content;
static struct request requests[DEPTH];
static uint64_t seed, moves, base, reads, writes;
static int control, file;
static _Atomic bool moved_all;

static void fail(const char *what, long result)
{
	fprintf(stderr, "seed %lu, after %lu reads and %lu writes: %s: %ld\n", seed, reads, writes,
		what, result);
	exit(1);
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * 0x2545f4914f6cdd1d;
}

/*
 * Moves the buffer. Most moves are as fast as possible; some keep the lock for a while, some are
 * pipelined, and some are followed by another move when an importer maps the buffer again.
 */
static void *move_buffer(void *unused)
{
	uint64_t state = seed ^ 0xabcdef;

	for (uint64_t i = 0; i < moves; i++) {
		unsigned int kind = next_random(&state) >> 32 & 255;
		struct dmabuf_test_move how = { .hold_ms = kind == 0, .fence_ms = kind == 1 };
		struct dmabuf_test_map_move when_mapped = { .count = 1, .fence_ms = 1 };

		if (kind >= 2 && kind < 10 &&
		    ioctl(control, DMABUF_TEST_MAP_MOVE, &when_mapped) < 0)
			fail("move when mapped", -errno);
		if (ioctl(control, DMABUF_TEST_MOVE, &how) < 0)
			fail("move", -errno);
	}
	moved_all = true;
	return unused;
}

static uint8_t *part_of(unsigned int i)
{
	return content + i * PART + requests[i].block * BLOCK;
}

static void start_request(unsigned int i, uint64_t *state)
{
	struct io_uring_sqe *sqe;
	uint8_t *block = memory + i * BLOCK;
	uint64_t r = next_random(state) >> 32;

	/* with SQPOLL the kernel takes requests whenever its thread runs */
	while (!(sqe = io_uring_get_sqe(&ring)))
		io_uring_sqring_wait(&ring);
	requests[i] = (struct request){ .write = r & 1, .block = (r >> 1) % BLOCKS };
	if (requests[i].write) {
		for (unsigned int j = 0; j < BLOCK; j += 8)
			memcpy(part_of(i) + j, &(uint64_t){ next_random(state) }, 8);
		memcpy(block, part_of(i), BLOCK);
	} else {
		memset(block, 0xee, 64);
	}
	io_uring_prep_rw(requests[i].write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED, sqe,
			 file, (void *)(uintptr_t)(i * BLOCK), BLOCK,
			 base + i * PART + requests[i].block * BLOCK);
	sqe->user_data = i;
}

static unsigned int finish_request(void)
{
	struct io_uring_cqe *cqe;
	unsigned int i;
	int ret;

	ret = io_uring_wait_cqe(&ring, &cqe);
	if (ret)
		fail("no completion", ret);
	i = cqe->user_data;
	if (cqe->res != BLOCK)
		fail(requests[i].write ? "a write failed" : "a read failed", cqe->res);
	io_uring_cqe_seen(&ring, cqe);
	if (memcmp(memory + i * BLOCK, part_of(i), BLOCK))
		fail(requests[i].write ? "the buffer of a write changed" :
					 "a read brought wrong bytes", i);
	*(requests[i].write ? &writes : &reads) += 1;
	return i;
}

static void read_and_write(void)
{
	uint64_t state = seed * 2 + 1;
	unsigned int i;

	for (i = 0; i < DEPTH; i++)
		start_request(i, &state);
	io_uring_submit(&ring);
	while (!moved_all) {
		start_request(finish_request(), &state);
		io_uring_submit(&ring);
	}
	for (i = 0; i < DEPTH; i++)
		finish_request();
}

static void set_up(unsigned int flags, int buffer, const char *path)
{
	struct desc desc = { .type = 2, .dmabuf_fd = buffer };
	struct io_uring_rsrc_update2 update = { .resv = 2, .data = (uintptr_t)&desc, .nr = 1 };
	int ret;

	file = desc.target_fd = open(path, O_RDWR | O_DIRECT);
	content = aligned_alloc(BLOCK, AREA);
	if (file < 0 || pread(file, content, AREA, base) != AREA)
		fail(path, -errno);
	memory = mmap(NULL, DEPTH * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, buffer, 0);
	if (memory == MAP_FAILED)
		fail("mmap", -errno);
	ret = io_uring_queue_init(DEPTH, &ring, flags);
	if (!ret)
		ret = io_uring_register_buffers_sparse(&ring, 1);
	if (ret)
		fail("io_uring", ret);
	if (syscall(__NR_io_uring_register, ring.ring_fd, IORING_REGISTER_BUFFERS_UPDATE, &update,
		    sizeof(update)) != 1)
		fail("registration", -errno);
}

int main(int argc, char **argv)
{
	pthread_t mover;
	uint8_t *found;

	if (argc != 8)
		return 2;
	seed = strtoul(argv[1], NULL, 0);
	moves = strtoul(argv[2], NULL, 0);
	control = atoi(argv[4]);
	base = strtoul(argv[7], NULL, 0);
	set_up(atoi(argv[3]), atoi(argv[5]), argv[6]);

	if (pthread_create(&mover, NULL, move_buffer, NULL))
		fail("thread", -errno);
	read_and_write();
	pthread_join(mover, NULL);

	found = aligned_alloc(BLOCK, AREA);
	if (pread(file, found, AREA, base) != AREA || memcmp(found, content, AREA))
		fail("the file differs from what was written to it", -errno);
	printf("seed %lu: %lu moves under %lu reads and %lu writes\n", seed, moves, reads, writes);
	return 0;
}
