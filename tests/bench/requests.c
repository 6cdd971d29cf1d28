/*
 * Counts the instructions of one request:
 * requests FILE read|write memory|token|contiguous|pieces [REQUESTS [BYTES [DEPTH]]]
 *
 * Prints how many instructions one direct read or write of FILE takes. Each has BYTES (4 KiB) and
 * DEPTH of them (32) are under way at a time. The buffer is an ordinary registered one, or one with
 * a token: on a udmabuf, or on a buffer of the test exporter whose memory is contiguous or in
 * pieces of 4 KiB. Writes overwrite the first 4 MiB of FILE with zeroes. The program prints
 * "ready" and reads a line before the counted requests, and reads another line after them, so that
 * the caller can count other events between the two.
 *
 * The figures are only right on a machine where one instruction takes one nanosecond (tests/bed/vm
 * --count): there the clock counts instructions. A thread that runs only when the processor would
 * be idle counts its loops, and the time of these loops is subtracted. The program prints first
 * how many loops and how many instructions of each these were.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/udmabuf.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../modules/exporter/dmabuf-test.h"
#include "marks.h"

#define SPAN	(4 << 20)	/* of the file */

/* The registration of dma-bufs: see fuse-kernel-patches, base/ */
struct regbuf_desc {
	__u32 type, flags;
	__u64 size, uaddr;
	__s32 dmabuf_fd, target_fd;
	__u64 resv[6];
};

#define REGBUF_DMABUF		2
#define UPDATE_EXTENDED		(1u << 1)

static struct io_uring ring;
static char *base;		/* of the buffer; a token counts from 0 */
static bool writes;
static unsigned int block = 4096, depth = 32;

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static volatile unsigned long loops;

static void *spin(void *unused)
{
	const struct sched_param param = { 0 };

	if (sched_setscheduler(0, SCHED_IDLE, &param))
		err(1, "SCHED_IDLE");
	for (;;)
		loops++;
	return unused;
}

/* Returns how many instructions one loop takes. */
static double calibrate(void)
{
	pthread_t spinner;
	unsigned long first;
	long long start;

	if ((errno = pthread_create(&spinner, NULL, spin, NULL)))
		err(1, "thread");
	usleep(10000);
	start = now();
	first = loops;
	usleep(100000);
	return (double)(now() - start) / (loops - first);
}

/* Returns a memfd of memory for all requests that are under way. */
static int allocate(void)
{
	int memfd = memfd_create("buffer", MFD_ALLOW_SEALING);

	if (memfd < 0 || ftruncate(memfd, depth * block) ||
	    fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK))
		err(1, "memfd");
	return memfd;
}

static void register_memory(void)
{
	struct iovec vec = { .iov_len = depth * block };

	vec.iov_base = mmap(NULL, vec.iov_len, PROT_READ | PROT_WRITE, MAP_SHARED, allocate(), 0);
	if (vec.iov_base == MAP_FAILED)
		err(1, "mmap");
	base = vec.iov_base;
	if ((errno = -io_uring_register_buffers(&ring, &vec, 1)))
		err(1, "register memory");
}

static int create_udmabuf(void)
{
	struct udmabuf_create create = { .memfd = allocate(), .size = depth * block };
	int device = open("/dev/udmabuf", O_RDWR);
	int dmabuf = device < 0 ? -1 : ioctl(device, UDMABUF_CREATE, &create);

	if (dmabuf < 0)
		err(1, "udmabuf");
	return dmabuf;
}

/* Returns a buffer of the test exporter in one piece, or in pieces of a page. */
static int create_test_buffer(bool contiguous)
{
	struct dmabuf_test_create create = { .size = depth * block };
	int device = open("/dev/dmabuf-test", O_RDWR);

	while (contiguous && (uint64_t)getpagesize() << create.chunk_order < create.size)
		create.chunk_order++;
	if (device < 0 || ioctl(device, DMABUF_TEST_CREATE, &create))
		err(1, "test exporter");
	return create.fd;
}

static void register_token(int dmabuf, int file)
{
	struct regbuf_desc desc = {
		.type = REGBUF_DMABUF, .dmabuf_fd = dmabuf, .target_fd = file,
	};
	struct io_uring_rsrc_update2 update = {
		.resv = UPDATE_EXTENDED, .data = (uintptr_t)&desc, .nr = 1,
	};

	if ((errno = -io_uring_register_buffers_sparse(&ring, 1)))
		err(1, "register slots");
	if (syscall(__NR_io_uring_register, ring.ring_fd, IORING_REGISTER_BUFFERS_UPDATE, &update,
		    sizeof(update)) != 1)
		err(1, "register token");
}

static void register_buffer(const char *kind, int file)
{
	if (!strcmp(kind, "memory"))
		register_memory();
	else if (!strcmp(kind, "token"))
		register_token(create_udmabuf(), file);
	else if (!strcmp(kind, "contiguous") || !strcmp(kind, "pieces"))
		register_token(create_test_buffer(!strcmp(kind, "contiguous")), file);
	else
		errx(2, "no buffer is called %s", kind);
}

static void prepare(int file, unsigned slot)
{
	static unsigned random = 1;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	unsigned offset;

	random = random * 1103515245 + 12345;
	offset = (random >> 8) % (SPAN / block) * block;
	if (writes)
		io_uring_prep_write_fixed(sqe, file, base + slot * block, block, offset, 0);
	else
		io_uring_prep_read_fixed(sqe, file, base + slot * block, block, offset, 0);
	sqe->user_data = slot;
}

/* Keeps the queue full until so many requests are done. */
static void transfer_blocks(int file, unsigned long requests)
{
	unsigned long started, done = 0;
	struct io_uring_cqe *cqe;
	unsigned head, seen;

	for (started = 0; started < depth; started++)
		prepare(file, started);
	while (done < requests) {
		io_uring_submit_and_wait(&ring, 1);
		seen = 0;
		io_uring_for_each_cqe(&ring, head, cqe) {
			if (cqe->res != (int)block)
				errx(1, "a %s returned %d: %s", writes ? "write" : "read", cqe->res,
				     cqe->res < 0 ? strerror(-cqe->res) : "short");
			seen++;
			if (started < requests) {
				prepare(file, cqe->user_data);
				started++;
			}
		}
		io_uring_cq_advance(&ring, seen);
		done += seen;
	}
}

/* Waits for a line on stdin, or its end. */
static void wait_for_line(void)
{
	int byte;

	fflush(stdout);
	do
		byte = getchar();
	while (byte != '\n' && byte != EOF);
}

int main(int argc, char **argv)
{
	unsigned long requests = argc > 4 ? strtoul(argv[4], NULL, 0) : 8192, first, idle;
	double turn;
	long long start, spent;
	int file;

	if (argc < 4)
		errx(2, "usage: requests FILE read|write BUFFER [REQUESTS [BYTES [DEPTH]]]");
	if (argc > 5)
		block = strtoul(argv[5], NULL, 0);
	if (argc > 6)
		depth = strtoul(argv[6], NULL, 0);
	writes = !strcmp(argv[2], "write");
	file = open(argv[1], (writes ? O_RDWR : O_RDONLY) | O_DIRECT);
	if (file < 0)
		err(1, "%s", argv[1]);
	errno = -io_uring_queue_init(2 * depth, &ring,
				     IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	if (errno)
		err(1, "ring");
	register_buffer(argv[3], file);

	turn = calibrate();
	transfer_blocks(file, requests / 8);
	puts("ready");
	wait_for_line();
	start = now();
	first = loops;
	MARK(MARK_BEGIN);
	transfer_blocks(file, requests);
	MARK(MARK_END);
	spent = now() - start;
	idle = loops - first;
	printf("%lu %.3f\n%.1f\n", idle, turn, (spent - idle * turn) / requests);
	wait_for_line();
	return 0;
}
