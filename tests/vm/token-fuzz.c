// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Makes random and hostile registrations of dma-bufs, and requests on them. A model knows what each
 * slot holds and what each file and buffer contains. A call that the model allows must succeed,
 * another must fail, and a call that succeeds must have moved exactly the bytes of the model.
 *
 * token-fuzz SEED COUNT BUFFER_FD BUFFER_FD REFUSED FILE...
 * All files have FILE_SIZE bytes, all buffers BUFFER_SIZE; no token is possible with REFUSED. A
 * hole of a file must not be filled. The program prints a line at the end, or which call went wrong
 * and how.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILE_SIZE	(8u << 20)
#define BUFFER_SIZE	(1u << 20)
#define SECTOR		512u
#define SLOTS		8
#define MAX_FILES	4
#define NR_BUFFERS	2
#define MAX_DESCS	SLOTS	/* the kernel refuses more before it reads them */
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

enum { EMPTY, UADDR, DMABUF };
enum { READV_FIXED = 60, WRITEV_FIXED };	/* newer than this liburing */

/* RWF_* under other names: not every libc knows all of them */
enum {
	HIPRI = 1 << 0, DSYNC = 1 << 1, SYNC = 1 << 2, NOWAIT = 1 << 3, APPEND = 1 << 4,
	NOAPPEND = 1 << 5, ATOMIC = 1 << 6, DONTCACHE = 1 << 7, NOSIGNAL = 1 << 8,
	ALL_FLAGS = (1 << 9) - 1,
};

struct desc {
	uint32_t type, flags;
	uint64_t size, uaddr;
	int32_t dmabuf_fd, target_fd;
	uint64_t resv[6];
};

struct update {
	uint32_t offset, flags;
	uint64_t data, tags;
	uint32_t nr, resv2;
};

struct file {
	int fd;
	bool is_device;
	uint64_t hole, hole_end;	/* the first one */
	uint8_t *content;
};

struct buffer {
	int fd;
	uint8_t *memory, *content;
};

/* What a slot holds. Both are NULL for a slot with other memory than a dma-buf, or with none. */
struct slot {
	struct file *file;
	struct buffer *buffer;
};

static struct io_uring ring;
static struct file files[MAX_FILES];
static unsigned int nr_files;
static struct buffer buffers[NR_BUFFERS];
static struct slot slots[SLOTS];
static int other_fds[12];		/* descriptors that no token is possible with */
static unsigned int nr_other_fds;
static uint8_t *scratch;
static unsigned long seed, call;

static void fail(const char *what, long result)
{
	fprintf(stderr, "seed %lu, call %lu: %s: %ld\n", seed, call, what, result);
	exit(1);
}

static uint64_t random64(void)
{
	static uint64_t state;

	if (!state)
		state = seed * 0x9e3779b97f4a7c15 + 1;
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state * 0x2545f4914f6cdd1d;
}

static unsigned int random_below(unsigned int n)
{
	return (random64() >> 32) % n;
}

static bool one_in(unsigned int n)
{
	return !random_below(n);
}

/* Returns a number that may break something: an edge, a power of two or its neighbour, or any. */
static uint64_t hostile_number(void)
{
	switch (random_below(4)) {
	case 0: return (uint64_t[]){ 0, 1, -1, BUFFER_SIZE, FILE_SIZE, INT32_MAX, UINT32_MAX,
				     INT64_MAX }[random_below(8)];
	case 1: return (1ull << random_below(64)) + random_below(3) - 1;
	case 2: return -(uint64_t)random_below(1 << 20);
	default: return random64();
	}
}

/* Returns @value, or once in @n times a hostile number. */
static uint64_t maybe_hostile(uint64_t value, unsigned int n)
{
	return one_in(n) ? hostile_number() : value;
}

static struct file *find_file(int fd)
{
	for (unsigned int i = 0; i < nr_files; i++)
		if (files[i].fd == fd)
			return &files[i];
	return NULL;
}

static struct buffer *find_buffer(int fd)
{
	for (unsigned int i = 0; i < NR_BUFFERS; i++)
		if (buffers[i].fd == fd)
			return &buffers[i];
	return NULL;
}

/* Returns a descriptor that is not open, far from those that are. */
static int bad_fd(void)
{
	return one_in(2) ? -1 - (int)random_below(200) : 5000 + (int)random_below(1 << 20);
}

static int any_fd(int usual)
{
	if (!one_in(6))
		return usual;
	if (one_in(3))
		return bad_fd();
	if (one_in(3))
		return one_in(2) ? files[random_below(nr_files)].fd :
				   buffers[random_below(NR_BUFFERS)].fd;
	return other_fds[random_below(nr_other_fds)];
}

/* Registrations */

static void random_desc(struct desc *desc)
{
	*desc = (struct desc){
		.type = maybe_hostile(one_in(5) ? random_below(2) : DMABUF, 12),
		.flags = maybe_hostile(0, 20),
	};
	if (desc->type == DMABUF) {
		desc->dmabuf_fd = any_fd(buffers[random_below(NR_BUFFERS)].fd);
		desc->target_fd = any_fd(files[random_below(nr_files)].fd);
	} else if (desc->type == UADDR) {
		desc->uaddr = (uintptr_t)scratch;
		desc->size = 4096;
	}
	desc->uaddr = maybe_hostile(desc->uaddr, 20);
	desc->size = maybe_hostile(desc->size, 20);
	if (one_in(20))
		desc->resv[random_below(6)] = hostile_number();
}

static bool is_good(const struct desc *desc)
{
	for (int i = 0; i < 6; i++)
		if (desc->resv[i])
			return false;
	if (desc->flags)
		return false;
	if (desc->type == EMPTY)
		return !desc->uaddr && !desc->size;
	return desc->type == DMABUF && !desc->uaddr && !desc->size &&
	       find_file(desc->target_fd) && find_buffer(desc->dmabuf_fd);
}

static bool may_be_good(const struct desc *desc)
{
	return desc->type == UADDR ? !desc->flags : is_good(desc);
}

static void remember(unsigned int slot, const struct desc *desc)
{
	slots[slot] = (struct slot){ 0 };
	if (desc->type == DMABUF)
		slots[slot] = (struct slot){ find_file(desc->target_fd),
					     find_buffer(desc->dmabuf_fd) };
}

static bool try_registration(void)
{
	struct desc descs[MAX_DESCS];
	unsigned int nr = 1 + random_below(one_in(4) ? 5 : 1), good;
	uint64_t data = maybe_hostile((uintptr_t)descs, 30), tags = maybe_hostile(0, 30);
	struct update update = {
		.offset = maybe_hostile(random_below(SLOTS + 1), 20),
		.flags = maybe_hostile(2, 30), .data = data, .tags = tags,
		.nr = maybe_hostile(nr, 40), .resv2 = maybe_hostile(0, 40),
	};
	unsigned int size = maybe_hostile(sizeof(update), 40);
	bool sound;
	long ret;

	/* without flags the call is another one, which takes the descriptors for iovecs */
	if (!update.flags)
		update.flags = 3;
	for (unsigned int i = 0; i < MAX_DESCS; i++)
		random_desc(&descs[i]);
	for (good = 0; good < nr && is_good(&descs[good]); good++)
		;
	sound = update.flags == 2 && data == (uintptr_t)descs && !tags && update.nr == nr &&
		!update.resv2 && size == sizeof(update) && (uint64_t)update.offset + nr <= SLOTS;

	ret = syscall(__NR_io_uring_register, ring.ring_fd, IORING_REGISTER_BUFFERS_UPDATE, &update,
		      size);
	if (ret < 0 ? sound && good : sound && ret < good)
		fail("a good registration was refused", ret < 0 ? -errno : ret);
	if (ret <= 0)
		return false;
	if (ret > update.nr || update.flags != 2 || update.resv2 || size != sizeof(update) ||
	    (uint64_t)update.offset + ret > SLOTS)
		fail("a wrong registration succeeded", ret);
	for (long i = 0; i < ret; i++) {
		if (data == (uintptr_t)descs && !may_be_good(&descs[i]))
			fail("a wrong descriptor was accepted", i);
		remember(update.offset + i,
			 data == (uintptr_t)descs ? &descs[i] : &(struct desc){ 0 });
	}
	return true;
}

/* Requests */

struct request {
	int opcode, fd, slot;
	uint64_t place, offset;
	uint32_t length, flags;
};

static struct request last;

static void report_hang(int unused)
{
	(void)unused;
	fprintf(stderr, "the last request: opcode %d, fd %d, slot %d, place %#lx, offset %#lx, "
		"length %#x, flags %#x\n", last.opcode, last.fd, last.slot, last.place, last.offset,
		last.length, last.flags);
	fail("a call does not end", 0);
}

static uint32_t random_flags(void)
{
	switch (random_below(12)) {
	case 0: return 1u << random_below(9);
	case 1: return 1u << random_below(9) | 1u << random_below(9);
	case 2: return random64() & ALL_FLAGS;
	case 3: return one_in(4) ? hostile_number() : 0;
	default: return 0;
	}
}

static void random_request(struct request *r)
{
	static const int opcodes[] = { READV_FIXED, WRITEV_FIXED, IORING_OP_READ, IORING_OP_WRITE,
				       IORING_OP_SEND_ZC, IORING_OP_NOP };
	unsigned int mask = one_in(3) ? 0 : SECTOR - 1;
	struct slot *slot;

	*r = (struct request){
		.opcode = one_in(2) ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED,
		.slot = random_below(SLOTS),
	};
	if (one_in(20))
		r->opcode = opcodes[random_below(ARRAY_SIZE(opcodes))];
	if (one_in(20))
		r->slot = hostile_number() & 0xffff;
	slot = r->slot < SLOTS ? &slots[r->slot] : NULL;
	r->fd = any_fd(slot && slot->file ? slot->file->fd : files[random_below(nr_files)].fd);
	/* a read from the ring would wait for its next completion */
	if (r->fd == ring.ring_fd && r->opcode != IORING_OP_READ_FIXED &&
	    r->opcode != IORING_OP_WRITE_FIXED)
		r->fd = files[0].fd;
	r->length = maybe_hostile(random_below(one_in(32) ? BUFFER_SIZE / 4 : 8192) & ~mask, 5);
	r->place = maybe_hostile(random_below(BUFFER_SIZE) & ~mask, 5);
	r->offset = maybe_hostile(random_below(FILE_SIZE) & ~mask, 5);
	if (r->offset == (uint64_t)-1)	/* this means the position of the file */
		r->offset--;
	r->flags = random_flags();
	last = *r;
}

/*
 * Returns true if the request must succeed: in whole sectors inside of buffer and file, in no hole,
 * with flags that do not matter for that.
 */
static bool is_sound(const struct request *r, const struct file *file)
{
	uint32_t harmless = DSYNC | SYNC | NOAPPEND | NOSIGNAL;

	if (r->flags & ~harmless ||
	    (r->offset < file->hole_end && r->offset + r->length > file->hole))
		return false;
	return !((r->length | r->place | r->offset) & (SECTOR - 1)) && r->length &&
	       r->offset + r->length <= FILE_SIZE && r->offset < FILE_SIZE &&
	       r->place <= BUFFER_SIZE && r->length <= BUFFER_SIZE - r->place;
}

/*
 * Returns true if the kernel must refuse the flags: flags that the ring or a request on a token
 * does not support, unknown flags, and appending, because no file may grow.
 */
static bool flags_are_refused(const struct request *r, const struct file *file)
{
	if (r->flags & (HIPRI | ATOMIC | ~ALL_FLAGS) || (r->flags & APPEND && r->flags & NOAPPEND))
		return true;
	return r->flags & APPEND && r->opcode == IORING_OP_WRITE_FIXED && !file->is_device;
}

static int execute(const struct request *r)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	struct io_uring_cqe *cqe;
	unsigned int more;
	int ret, res;

	io_uring_prep_rw(r->opcode, sqe, r->fd, (void *)(uintptr_t)r->place, r->length, r->offset);
	sqe->buf_index = r->slot;
	sqe->rw_flags = r->flags;
	if (r->opcode == IORING_OP_SEND_ZC)
		sqe->ioprio = IORING_RECVSEND_FIXED_BUF;
	if (one_in(8))
		sqe->flags |= IOSQE_ASYNC;
	io_uring_submit(&ring);
	ret = io_uring_wait_cqe(&ring, &cqe);
	if (ret)
		fail("no completion", ret);
	res = cqe->res;
	more = cqe->flags & IORING_CQE_F_MORE;
	io_uring_cqe_seen(&ring, cqe);
	if (more && !io_uring_wait_cqe(&ring, &cqe))
		io_uring_cqe_seen(&ring, cqe);
	return res;
}

static void check_moved(const struct request *r, struct slot *slot, unsigned int count)
{
	uint8_t *memory = slot->buffer->content + r->place, *file = slot->file->content + r->offset;

	if (r->opcode == IORING_OP_READ_FIXED)
		memcpy(memory, file, count);
	else
		memcpy(file, memory, count);
	if (memcmp(slot->buffer->memory + r->place, memory, count))
		fail("wrong bytes in the buffer", count);
}

static bool try_request(void)
{
	struct slot *slot = NULL;
	struct request r;
	bool fits;
	int res;

	random_request(&r);
	if (r.opcode == IORING_OP_NOP)
		return execute(&(struct request){ .opcode = r.opcode, .fd = -1 }) == 0;
	res = execute(&r);
	if (r.opcode != IORING_OP_READ_FIXED && r.opcode != IORING_OP_WRITE_FIXED) {
		/* these may succeed between an ordinary address and an ordinary file or socket */
		if (res > 0 && r.slot < SLOTS && slots[r.slot].file &&
		    r.opcode != IORING_OP_SEND_ZC)
			fail("an opcode that knows no dma-bufs succeeded", res);
		return false;
	}
	if (res == -EAGAIN && !(r.flags & NOWAIT))
		fail("EAGAIN", res);
	if (r.slot < SLOTS && slots[r.slot].file)
		slot = &slots[r.slot];
	fits = slot && slot->file == find_file(r.fd);
	if (fits && is_sound(&r, slot->file) && res != (int)r.length)
		fail("a good request failed", res);
	if (res <= 0)
		return false;
	if (!fits || r.place > BUFFER_SIZE || (unsigned int)res > BUFFER_SIZE - r.place ||
	    r.offset > FILE_SIZE || (unsigned int)res > FILE_SIZE - r.offset)
		fail("a wrong request succeeded", res);
	if (flags_are_refused(&r, slot->file))
		fail("a request with wrong flags succeeded", res);
	check_moved(&r, slot, res);
	return true;
}

/* Beginning and end */

static void open_file(struct file *file, const char *path)
{
	int fd = open(path, O_RDONLY);
	struct stat stat;

	file->content = malloc(FILE_SIZE);
	if (fd < 0 || read(fd, file->content, FILE_SIZE) != FILE_SIZE)
		fail(path, -errno);
	other_fds[nr_other_fds++] = fd;	/* not O_DIRECT */
	file->fd = open(path, O_RDWR | O_DIRECT);
	if (file->fd < 0 || fstat(fd, &stat))
		fail(path, -errno);
	file->is_device = S_ISBLK(stat.st_mode);
	if (!file->is_device) {
		file->hole = lseek(fd, 0, SEEK_HOLE);
		file->hole_end = file->hole < FILE_SIZE ? lseek(fd, file->hole, SEEK_DATA) :
							  FILE_SIZE;
	}
}

static void open_buffer(struct buffer *buffer, int fd)
{
	buffer->fd = fd;
	buffer->content = calloc(1, BUFFER_SIZE);
	buffer->memory = mmap(NULL, BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (buffer->memory == MAP_FAILED)
		fail("mmap", -errno);
	memset(buffer->memory, 0, BUFFER_SIZE);
}

/* The pipe and the socket have no other end, so that no request waits for one. */
static void open_other_fds(const char *refused)
{
	int pair[2];

	other_fds[nr_other_fds++] = open(refused, O_RDWR | O_DIRECT);
	if (other_fds[nr_other_fds - 1] < 0)
		fail(refused, -errno);
	other_fds[nr_other_fds++] = ring.ring_fd;
	other_fds[nr_other_fds++] = open("/dev/full", O_RDWR);
	other_fds[nr_other_fds++] = open("/tmp", O_RDWR | O_TMPFILE | O_DIRECT, 0600);
	if (pipe2(pair, O_DIRECT | O_NONBLOCK) < 0)
		fail("pipe", -errno);
	other_fds[nr_other_fds++] = pair[0];
	close(pair[1]);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
		fail("socketpair", -errno);
	other_fds[nr_other_fds++] = pair[0];
	close(pair[1]);
}

static unsigned int open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void check_contents(void)
{
	uint8_t *found = aligned_alloc(4096, FILE_SIZE);

	for (unsigned int i = 0; i < nr_files; i++)
		if (pread(files[i].fd, found, FILE_SIZE, 0) != FILE_SIZE ||
		    memcmp(found, files[i].content, FILE_SIZE))
			fail("a file differs from what was written to it", i);
	for (unsigned int i = 0; i < NR_BUFFERS; i++)
		if (memcmp(buffers[i].memory, buffers[i].content, BUFFER_SIZE))
			fail("a buffer differs from what was read into it", i);
	free(found);
}

int main(int argc, char **argv)
{
	unsigned long count, registered = 0, requested = 0, registrations = 0;
	unsigned int descriptors;

	if (argc < 7 || argc - 6 > MAX_FILES)
		return 2;
	seed = strtoul(argv[1], NULL, 0);
	count = strtoul(argv[2], NULL, 0);
	/* no file may grow: a write at a great offset would make a sparse one */
	setrlimit(RLIMIT_FSIZE, &(struct rlimit){ FILE_SIZE, FILE_SIZE });
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGALRM, report_hang);

	if (io_uring_queue_init(8, &ring, 0) || io_uring_register_buffers_sparse(&ring, SLOTS))
		fail("io_uring", -errno);
	for (; nr_files < (unsigned int)argc - 6; nr_files++)
		open_file(&files[nr_files], argv[6 + nr_files]);
	for (unsigned int i = 0; i < NR_BUFFERS; i++)
		open_buffer(&buffers[i], atoi(argv[3 + i]));
	open_other_fds(argv[5]);
	scratch = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	descriptors = open_descriptors();
	for (call = 0; call < count; call++) {
		alarm(20);
		if (one_in(20)) {
			registrations++;
			registered += try_registration();
		} else {
			requested += try_request();
		}
	}
	if (open_descriptors() != descriptors)
		fail("descriptors were left open", open_descriptors() - descriptors);
	check_contents();
	printf("seed %lu: %lu of %lu registrations and %lu of %lu requests succeeded\n", seed,
	       registered, registrations, requested, count - registrations);
	return 0;
}
