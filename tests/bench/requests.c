/*
 * Counts the instructions of one request: requests FILE read|write memory|token [REQUESTS]
 *
 * Prints how many instructions one direct 4 KiB read or write of FILE takes at queue depth 32, with
 * an ordinary registered buffer or one with a token. Writes overwrite the first 4 MiB of FILE with
 * zeroes. The program prints "ready" and reads a line before the counted requests, and reads
 * another line after them, so that the caller can count other events between the two.
 *
 * The figures are only right on a machine where one instruction takes one nanosecond (tests/bed/vm
 * --count): there the clock counts instructions. A thread that runs only when the processor would
 * be idle counts its loops, and the time of these loops is subtracted.
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

#define DEPTH	32
#define BLOCK	4096
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

static void *allocate(int *memfd)
{
	void *memory;

	*memfd = memfd_create("buffer", MFD_ALLOW_SEALING);
	if (*memfd < 0 || ftruncate(*memfd, DEPTH * BLOCK) ||
	    fcntl(*memfd, F_ADD_SEALS, F_SEAL_SHRINK))
		err(1, "memfd");
	memory = mmap(NULL, DEPTH * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, *memfd, 0);
	if (memory == MAP_FAILED)
		err(1, "mmap");
	return memory;
}

static void register_memory(int memfd, void *memory)
{
	const struct iovec vec = { memory, DEPTH * BLOCK };

	(void)memfd;
	base = memory;
	if ((errno = -io_uring_register_buffers(&ring, &vec, 1)))
		err(1, "register memory");
}

static void register_token(int memfd, int file)
{
	struct udmabuf_create create = { .memfd = memfd, .size = DEPTH * BLOCK };
	struct regbuf_desc desc = { .type = REGBUF_DMABUF, .target_fd = file };
	struct io_uring_rsrc_update2 update = {
		.resv = UPDATE_EXTENDED, .data = (uintptr_t)&desc, .nr = 1,
	};
	int device = open("/dev/udmabuf", O_RDWR);

	desc.dmabuf_fd = device < 0 ? -1 : ioctl(device, UDMABUF_CREATE, &create);
	if (desc.dmabuf_fd < 0)
		err(1, "udmabuf");
	if ((errno = -io_uring_register_buffers_sparse(&ring, 1)))
		err(1, "register slots");
	if (syscall(__NR_io_uring_register, ring.ring_fd, IORING_REGISTER_BUFFERS_UPDATE, &update,
		    sizeof(update)) != 1)
		err(1, "register token");
}

static void prepare(int file, unsigned slot)
{
	static unsigned random = 1;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	unsigned offset;

	random = random * 1103515245 + 12345;
	offset = (random >> 8) % (SPAN / BLOCK) * BLOCK;
	if (writes)
		io_uring_prep_write_fixed(sqe, file, base + slot * BLOCK, BLOCK, offset, 0);
	else
		io_uring_prep_read_fixed(sqe, file, base + slot * BLOCK, BLOCK, offset, 0);
	sqe->user_data = slot;
}

/* Keeps the queue full until so many requests are done. */
static void transfer_blocks(int file, unsigned long requests)
{
	unsigned long started, done = 0;
	struct io_uring_cqe *cqe;
	unsigned head, seen;

	for (started = 0; started < DEPTH; started++)
		prepare(file, started);
	while (done < requests) {
		io_uring_submit_and_wait(&ring, 1);
		seen = 0;
		io_uring_for_each_cqe(&ring, head, cqe) {
			if (cqe->res != BLOCK)
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
	unsigned long requests = argc > 4 ? strtoul(argv[4], NULL, 0) : 8192, first;
	double turn;
	long long start, spent;
	int memfd, file;
	void *memory;

	if (argc < 4)
		errx(2, "usage: requests FILE read|write memory|token [REQUESTS]");
	writes = !strcmp(argv[2], "write");
	file = open(argv[1], (writes ? O_RDWR : O_RDONLY) | O_DIRECT);
	if (file < 0)
		err(1, "%s", argv[1]);
	errno = -io_uring_queue_init(2 * DEPTH, &ring,
				     IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	if (errno)
		err(1, "ring");
	memory = allocate(&memfd);
	if (strcmp(argv[3], "token"))
		register_memory(memfd, memory);
	else
		register_token(memfd, file);

	turn = calibrate();
	transfer_blocks(file, 1024);
	puts("ready");
	wait_for_line();
	start = now();
	first = loops;
	transfer_blocks(file, requests);
	spent = now() - start;
	printf("%.1f\n", (spent - (loops - first) * turn) / requests);
	wait_for_line();
	return 0;
}
