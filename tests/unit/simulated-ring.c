/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A simulated kernel in the place of the ring and file/filesystem.c. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "check.h"
#include "file/file.h"
#include "ring/ring.h"
#include "simulated-ring.h"

#define BLOCK 4096u
#define QUEUE_MAX 1024u
#define SLOTS_MAX 16384u
/* A flag that regular files ignore: a mark that goes with the open file, not with its number. */
#define MARK_ENDED O_NOATIME

struct simulation simulation;

struct command {
	struct ring_command command;
	void *tag;
	unsigned number;
	bool cancel_is_queued, is_cancelled;
};

struct slot {
	int dmabuf_fd, file_fd;
	bool is_revoked;
};

struct ring {
	pthread_mutex_t lock;	/* the kernel has one as well */
	unsigned long long random;
	unsigned depth, queued, unseen, ready;
	unsigned cancels_queued, cancels_done;	/* completions without a tag */
	int event_fd;
	bool is_broken;
	struct slot slots[SLOTS_MAX];
	struct command queue[QUEUE_MAX];
};

/* Queues of several threads count together. Relaxed: the library must not depend on this order. */
#define COUNT(counter, change) __atomic_add_fetch(&simulation.counter, change, __ATOMIC_RELAXED)
#define NOTE(member, value) __atomic_store_n(&simulation.member, value, __ATOMIC_RELAXED)
#define LOOK(member) __atomic_load_n(&simulation.member, __ATOMIC_RELAXED)

static unsigned percentage(struct ring *ring)
{
	return next_random(&ring->random) % 100;
}

/*
 * Look at descriptors that another thread may close meanwhile: ThreadSanitizer takes fstat(2) and
 * fcntl(2) for a use of them.
 */
static bool is_same_file(int fd, int other)
{
	struct statx one, two;

	return !syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_INO, &one) &&
	       !syscall(SYS_statx, other, "", AT_EMPTY_PATH, STATX_INO, &two) &&
	       one.stx_ino == two.stx_ino && one.stx_dev_major == two.stx_dev_major &&
	       one.stx_dev_minor == two.stx_dev_minor;
}

static int flags_of(int fd)
{
	return syscall(SYS_fcntl, fd, F_GETFL);
}

/* All descriptors of the file are on that mount. */
void simulate_end(int fd)
{
	for (int other = 0; other < FDS_MAX; other++)
		if (is_same_file(fd, other))
			syscall(SYS_fcntl, other, F_SETFL, flags_of(other) | MARK_ENDED);
	CHECK(server_has_ended(fd));
}

void simulate_return(void)
{
	for (int fd = 0; fd < FDS_MAX; fd++)
		if (server_has_ended(fd))
			syscall(SYS_fcntl, fd, F_SETFL, flags_of(fd) & ~MARK_ENDED);
}

bool is_on_fuse(int fd)
{
	(void)fd;
	return !simulation.not_fuse;
}

bool server_has_ended(int fd)
{
	int flags = flags_of(fd);

	return flags >= 0 && flags & MARK_ENDED;
}

/* ---------------------------------------------------------- the page cache */

bool handle_find_cached(struct fd_handle *handle, uint64_t from, uint64_t to, uint64_t *end)
{
	size_t blocks = simulation.cached ? strlen(simulation.cached) : 0;
	uint64_t block = from / BLOCK;
	bool is_cached = block < blocks && simulation.cached[block] == '#';

	(void)handle;
	while (block * BLOCK < to &&
	       (block < blocks && simulation.cached[block] == '#') == is_cached)
		block++;
	*end = min_u64(to, block * BLOCK);
	COUNT(cache_looks, 1);
	return is_cached;
}

uint64_t handle_read_cached(const struct fd_handle *handle, struct iovec *pieces, unsigned count,
			    uint64_t offset)
{
	uint64_t limit = simulation.cache_is_short ? 100 : UINT64_MAX, done = 0;

	COUNT(copies, 1);
	while (LOOK(copies_wait))
		usleep(1000);
	for (unsigned i = 0; i < count && done < limit; i++) {
		size_t part = min_u64(pieces[i].iov_len, limit - done);
		ssize_t got = pread(handle->plain_fd, pieces[i].iov_base, part, offset + done);

		done += got > 0 ? got : 0;
		if (got < (ssize_t)part)
			break;
	}
	return done;
}

/* ---------------------------------------------------------------- the ring */

int ring_open(unsigned depth, unsigned tokens, struct ring **result, int *reason)
{
	struct ring *ring = calloc(1, sizeof(*ring));

	CHECK(ring && depth <= QUEUE_MAX && tokens < SLOTS_MAX);
	if (simulation.no_ring)
		*reason = EPERM;
	pthread_mutex_init(&ring->lock, NULL);
	/* Another one for each ring, also of other threads. */
	ring->random = COUNT(random, 0x9e3779b97f4a7c15ull) | 1;
	ring->depth = depth;
	ring->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	for (unsigned i = 0; i < SLOTS_MAX; i++)
		ring->slots[i].file_fd = -1;
	*result = ring;
	return 0;
}

static void free_ring(struct ring *ring)
{
	close(ring->event_fd);
	pthread_mutex_destroy(&ring->lock);
	free(ring);
}

void ring_close(struct ring *ring)
{
	if (!ring)
		return;
	CHECK_EQUAL(ring->queued, 0);
	for (unsigned i = 1; i < SLOTS_MAX; i++)
		ring_end_token(ring, i);
	free_ring(ring);
}

void ring_forget(struct ring *ring)
{
	free_ring(ring);
}

bool ring_is_uring(const struct ring *ring)
{
	(void)ring;
	return !simulation.no_ring;
}

bool ring_has_tokens(struct ring *ring)
{
	(void)ring;
	return !simulation.no_tokens;
}

/* Returns 0 or the errno that the kernel or the broker gives for a registration. */
static int registration_error(int file_fd, bool is_later)
{
	if (server_has_ended(file_fd))
		return ENOTCONN;
	if (is_later && simulation.register_error_later)
		return simulation.register_error_later;
	if (simulation.register_error)
		return simulation.register_error;
	if (simulation.tokens_max && LOOK(tokens) >= simulation.tokens_max)
		return EDQUOT;
	return 0;
}

int ring_register_token(struct ring *ring, unsigned slot, int dmabuf_fd, int file_fd)
{
	bool is_later = LOOK(registrations) > 0;
	int error = registration_error(file_fd, is_later);

	CHECK(dmabuf_fd >= 0 && file_fd >= 0 && slot > 0 && slot < SLOTS_MAX);
	CHECK_EQUAL(ring->slots[slot].file_fd, -1);
	if (error)
		return -error;
	pthread_mutex_lock(&ring->lock);
	ring->slots[slot] = (struct slot){
		dmabuf_fd, file_fd, is_later && simulation.revoke_again,
	};
	pthread_mutex_unlock(&ring->lock);
	COUNT(registrations, 1);
	if (COUNT(tokens, 1) > LOOK(most_tokens))
		NOTE(most_tokens, LOOK(tokens));
	if (is_later && simulation.end_again)
		simulation.end_request = LOOK(requests) + 1;
	return 0;
}

void ring_end_token(struct ring *ring, unsigned slot)
{
	pthread_mutex_lock(&ring->lock);
	if (ring->slots[slot].file_fd >= 0) {
		for (unsigned i = 0; i < ring->queued; i++)
			CHECK(ring->queue[i].command.slot != slot);
		ring->slots[slot].file_fd = -1;
		COUNT(tokens, -1);
	}
	pthread_mutex_unlock(&ring->lock);
}

int ring_register_host(struct ring *ring, void *memory, size_t length)
{
	(void)ring;
	(void)memory;
	(void)length;
	return 0;
}

static uint64_t length_of(const struct ring_command *command)
{
	uint64_t length = 0;

	for (unsigned i = 0; i < command->count; i++)
		length += command->pieces[i].iov_len;
	return length;
}

static bool is_direct(int fd)
{
	return fcntl(fd, F_GETFL) & (O_DIRECT | MARK_DIRECT);
}

static bool has_token(const struct ring_command *command)
{
	return command->slot != RING_SLOT_HOST && command->slot != RING_SLOT_NONE;
}

static bool is_plain_write(const struct ring_command *command)
{
	return command->kind == RING_WRITE && !has_token(command) && !is_direct(command->fd);
}

static bool is_block_write(const struct ring_command *command)
{
	return command->kind == RING_WRITE && !is_plain_write(command);
}

/* What tests ask for happens when a command of this number is queued. */
static void do_as_asked(struct ring *ring, const struct ring_command *command, int number)
{
	if (number == simulation.shrink_request)
		CHECK(!ftruncate(command->fd, simulation.shrink_size));
	if (has_token(command) && number == simulation.revoke_request)
		ring->slots[command->slot].is_revoked = true;
	if (number == simulation.end_request)
		simulate_end(command->fd);
}

/* Notes what is in flight together. */
static void note_neighbours(const struct ring *ring, const struct ring_command *command)
{
	for (unsigned i = 0; i < ring->queued; i++) {
		const struct ring_command *other = &ring->queue[i].command;

		if ((is_plain_write(command) && is_block_write(other)) ||
		    (is_block_write(command) && is_plain_write(other)))
			NOTE(is_mixed, true);
		if ((command->kind == RING_SYNC) != (other->kind == RING_SYNC))
			NOTE(wrote_beside_sync, true);
	}
}

static void note_command(const struct ring *ring, const struct ring_command *command,
			 unsigned number)
{
	note_neighbours(ring, command);
	COUNT(vectors, command->count > 1);
	COUNT(direct_ios, command->slot == RING_SLOT_NONE);
	if (command->kind == RING_SYNC)
		NOTE(synced[(COUNT(syncs, 1) - 1) % 4], command->fd);
	if (is_plain_write(command) && !LOOK(first_plain))
		NOTE(first_plain, number);
	if (is_block_write(command))
		NOTE(last_block, number);
	if (command->count > LOOK(most_pieces))
		NOTE(most_pieces, command->count);
	NOTE(largest, max_u64(LOOK(largest), length_of(command)));
	NOTE(fd, command->fd);
	if (COUNT(in_flight, 1) > LOOK(max_in_flight))
		NOTE(max_in_flight, LOOK(in_flight));
}

void ring_queue(struct ring *ring, const struct ring_command *command, void *tag)
{
	unsigned number = COUNT(requests, 1);

	CHECK(ring->queued < ring->depth && command->fd < FDS_MAX);
	for (unsigned i = 0; i < command->count; i++)
		CHECK(command->pieces[i].iov_len > 0);
	if (!has_token(command))
		for (unsigned i = 0; i < command->count; i++)
			CHECK_EQUAL((uintptr_t)command->pieces[i].iov_base % BLOCK, 0);
	CHECK(command->count < 2 || command->slot != RING_SLOT_HOST);
	pthread_mutex_lock(&ring->lock);
	note_command(ring, command, number);
	ring->queue[ring->queued++] = (struct command){ *command, tag, number, false, false };
	ring->unseen++;
	do_as_asked(ring, command, number);
	pthread_mutex_unlock(&ring->lock);
}

void ring_cancel(struct ring *ring, void *tag)
{
	for (unsigned i = 0; i < ring->queued; i++)
		ring->queue[i].cancel_is_queued |= ring->queue[i].tag == tag;
	ring->cancels_queued++;
	COUNT(cancelled, 1);
}

static bool is_hanging(const struct command *entry)
{
	bool hangs = simulation.hangs || (simulation.hanging_fd > 0 &&
					  entry->command.fd == simulation.hanging_fd);

	return hangs && !entry->is_cancelled;
}

/* Returns how many of the commands that the kernel has can complete. */
static unsigned count_ready(const struct ring *ring)
{
	unsigned count = 0;

	for (unsigned i = 0; i < ring->queued - ring->unseen; i++)
		count += !is_hanging(&ring->queue[i]);
	return count;
}

int ring_submit(struct ring *ring)
{
	if (simulation.break_request && (int)LOOK(requests) >= simulation.break_request &&
	    !ring->is_broken) {
		ring->is_broken = true;
		return -EBADF;
	}
	if (ring->is_broken)
		return 0;
	ring->unseen = 0;
	for (unsigned i = 0; i < ring->queued; i++)
		ring->queue[i].is_cancelled |= ring->queue[i].cancel_is_queued;
	ring->cancels_done += ring->cancels_queued;
	ring->cancels_queued = 0;
	if (simulation.completes_alone)
		ring->ready = count_ready(ring);
	if (ring->cancels_done || ring->ready)
		eventfd_write(ring->event_fd, 1);
	return 0;
}

/* Waits until the timeout: nothing can complete before. Only a test that hangs waits for ever. */
static void wait_for_nothing(int timeout)
{
	struct timespec interval = {
		.tv_sec = timeout / 1000,
		.tv_nsec = timeout % 1000 * 1000000,
	};

	CHECK(timeout >= 0);
	nanosleep(&interval, NULL);
}

int ring_wait(struct ring *ring, int timeout, int fd)
{
	struct pollfd other = { .fd = fd, .events = POLLIN };
	int ret = ring_submit(ring);

	COUNT(waits, 1);
	if (ret)
		return ret;
	CHECK(ring->queued > 0 || fd >= 0 || !timeout);
	if (percentage(ring) < simulation.interrupt_percent)
		return -EINTR;
	ring->ready = count_ready(ring);
	if (ring->ready)
		ring->ready = 1 + next_random(&ring->random) % ring->ready;
	else if (fd >= 0)
		poll(&other, 1, ring->is_broken ? 1 : timeout);
	else if (!ring->cancels_done)
		wait_for_nothing(ring->is_broken ? 1 : timeout);
	return 0;
}

bool ring_take_back(struct ring *ring, void **tag)
{
	if (!ring->unseen)
		return false;
	ring->unseen--;
	COUNT(in_flight, -1);
	*tag = ring->queue[--ring->queued].tag;
	return true;
}

int ring_fd(const struct ring *ring)
{
	return ring->event_fd;
}

static bool is_unwritten(uint64_t offset)
{
	return simulation.unwritten && offset / BLOCK < strlen(simulation.unwritten) &&
	       simulation.unwritten[offset / BLOCK] == '.';
}

/*
 * Shortens a read with a token to end before the next hole, as the kernel does. Returns -ENXIO if
 * the read starts in a hole.
 */
static int limit_to_data(const struct ring_command *command, uint64_t *length)
{
	uint64_t offset = command->file_offset;
	off_t hole;

	if (is_unwritten(offset))
		return -ENXIO;
	for (uint64_t at = 0; at < *length; at += BLOCK)
		if (is_unwritten(offset + at))
			*length = at;
	if (lseek(command->fd, offset, SEEK_DATA) != (off_t)offset)
		return -ENXIO;
	hole = lseek(command->fd, offset, SEEK_HOLE);
	CHECK(hole > (off_t)offset);
	*length = min_u64(*length, align_up(hole, BLOCK) - offset);
	return 0;
}

/* Checks what the kernel checks of a command with a token. */
static int check_token(const struct ring *ring, const struct command *entry, uint64_t length)
{
	const struct ring_command *command = &entry->command;
	const struct slot *slot = &ring->slots[command->slot];

	CHECK(command->slot < SLOTS_MAX);
	if (simulation.short_bytes && command->file_offset % BLOCK)
		return -EINVAL;
	CHECK_EQUAL(command->file_offset % BLOCK, 0);
	CHECK_EQUAL(length % BLOCK, 0);
	if (slot->file_fd != command->fd)
		return -EBADF;
	if (slot->is_revoked || server_has_ended(command->fd))
		return -ESTALE;
	if (command->count > 1 && simulation.no_vectors)
		return -EINVAL;
	if (command->kind == RING_WRITE && simulation.no_write_token)
		return -EACCES;
	if (simulation.refuse_request && (int)entry->number >= simulation.refuse_request)
		return -EOPNOTSUPP;
	return 0;
}

/* Checks what the kernel checks of a command with O_DIRECT and host memory. */
static int check_host(const struct ring_command *command, uint64_t length)
{
	if (server_has_ended(command->fd))
		return -ENOTCONN;
	if (!is_direct(command->fd) || command->kind == RING_SYNC)
		return 0;
	if (command->slot == RING_SLOT_NONE ? simulation.no_direct_pages :
					      simulation.no_direct_host)
		return -EINVAL;
	if (simulation.short_bytes && (command->file_offset % BLOCK || length % BLOCK))
		return -EINVAL;
	CHECK_EQUAL(command->file_offset % BLOCK, 0);
	CHECK_EQUAL(length % BLOCK, 0);
	return 0;
}

static unsigned char *memory_of(const struct ring *ring, const struct ring_command *command,
				const struct iovec *piece)
{
	uint64_t offset = (uintptr_t)piece->iov_base;

	if (!has_token(command))
		return piece->iov_base;
	CHECK(offset + piece->iov_len <= simulation.memory_size);
	CHECK_EQUAL(offset % BLOCK, 0);
	return simulation.memory + ring->slots[command->slot].dmabuf_fd * simulation.memory_size +
	       offset;
}

/* Returns true if a direct command goes to other memory than the buffer's. */
static bool is_lost(const struct ring_command *command)
{
	if (!has_token(command))
		return false;
	if (command->kind == RING_WRITE)
		return simulation.lose_writes;
	return simulation.lose_every && COUNT(direct_reads, 1) % simulation.lose_every == 0;
}

static int move(const struct ring *ring, const struct ring_command *command, uint64_t length)
{
	static unsigned char elsewhere[1 << 20];
	bool lost = is_lost(command);
	uint64_t done = 0;

	COUNT(lost, lost);

	for (unsigned i = 0; i < command->count && done < length; i++) {
		const struct iovec *piece = &command->pieces[i];
		uint64_t part = min_u64(piece->iov_len, length - done);
		void *memory = lost ? elsewhere : memory_of(ring, command, piece);
		ssize_t got = command->kind == RING_WRITE ?
			      pwrite(command->fd, memory, part, command->file_offset + done) :
			      pread(command->fd, memory, part, command->file_offset + done);

		if (got < 0)
			return -errno;
		done += got;
		if ((uint64_t)got < part)
			break;
	}
	return done;
}

/* Shortens a command, as asked. Returns a negative errno if it fails instead. */
static int limit_length(struct ring *ring, const struct ring_command *command, uint64_t *length)
{
	bool writes = command->kind == RING_WRITE;

	if (writes && simulation.full_from) {
		if (command->file_offset >= simulation.full_from)
			return -simulation.fail_error;
		*length = min_u64(*length, simulation.full_from - command->file_offset);
	}
	if (simulation.short_results && *length > BLOCK)
		*length = BLOCK * (1 + next_random(&ring->random) % (*length / BLOCK));
	if (writes && simulation.short_bytes && percentage(ring) < 50)
		*length = 1 + next_random(&ring->random) % *length;
	return 0;
}

static int carry_out(struct ring *ring, const struct command *entry)
{
	const struct ring_command *command = &entry->command;
	uint64_t length = length_of(command);
	bool reads = command->kind == RING_READ;
	int ret = has_token(command) ? check_token(ring, entry, length) :
				       check_host(command, length);

	if (ret)
		return ret;
	if (command->kind == RING_SYNC)
		return -simulation.sync_error;
	CHECK(length > 0);
	if (reads && (off_t)command->file_offset >= lseek(command->fd, 0, SEEK_END))
		return 0;
	if (reads && has_token(command) && limit_to_data(command, &length))
		return -ENXIO;
	ret = limit_length(ring, command, &length);
	return ret ? ret : move(ring, command, length);
}

static int result_of(struct ring *ring, const struct command *entry)
{
	if (entry->is_cancelled && next_random(&ring->random) % 2)
		return -ECANCELED;
	if (simulation.fail_error && !simulation.full_from &&
	    (int)entry->number >= simulation.fail_request)
		return -simulation.fail_error;
	if (percentage(ring) < simulation.again_percent)
		return -EAGAIN;
	return carry_out(ring, entry);
}

/* Returns the place of a command that completes: any one that does not hang. */
static unsigned choose(struct ring *ring)
{
	unsigned place = next_random(&ring->random) % count_ready(ring), i = 0;

	for (;; i++)
		if (!is_hanging(&ring->queue[i]) && !place--)
			return i;
}

static void remove_command(struct ring *ring, unsigned place)
{
	/* What the kernel has not seen stays behind what it has seen. */
	ring->queue[place] = ring->queue[ring->queued - ring->unseen - 1];
	if (ring->unseen)
		memmove(&ring->queue[ring->queued - ring->unseen - 1],
			&ring->queue[ring->queued - ring->unseen],
			ring->unseen * sizeof(*ring->queue));
	ring->queued--;
}

bool ring_next(struct ring *ring, void **tag, int *result)
{
	eventfd_t ignored;
	unsigned place;

	ring->cancels_done = 0;
	if (!ring->ready || !count_ready(ring)) {
		eventfd_read(ring->event_fd, &ignored);
		return false;
	}
	ring->ready--;
	place = choose(ring);
	*tag = ring->queue[place].tag;
	*result = result_of(ring, &ring->queue[place]);
	pthread_mutex_lock(&ring->lock);
	remove_command(ring, place);
	pthread_mutex_unlock(&ring->lock);
	COUNT(in_flight, -1);
	return true;
}
