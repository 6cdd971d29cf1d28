/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A simulated kernel in the place of ring.c and filesystem.c. */
#include <string.h>

#include "check.h"
#include "internal.h"
#include "simulated-ring.h"

#define BLOCK 4096u

struct simulation simulation;

struct operation {
	unsigned char *memory;
	int fd;
	uint32_t length;
	uint64_t offset;
	bool has_token;
	void *tag;
};

struct ring {
	unsigned depth, queued, ready;
	int token_fd;			/* the file that the token is for */
	struct operation queue[FDMABUF_DEPTH_MAX];
};

void simulate_end(int fd)
{
	simulation.has_ended = simulation.is_revoked = true;
	simulation.ended_fd = fd;
}

bool is_on_fuse(int fd)
{
	(void)fd;
	return !simulation.not_fuse;
}

bool server_has_ended(int fd)
{
	return simulation.has_ended && simulation.ended_fd == fd;
}

int ring_open(unsigned depth, struct ring **result)
{
	if (simulation.no_ring)
		return -EPERM;
	*result = calloc(1, sizeof(struct ring));
	CHECK(*result);
	(*result)->depth = depth;
	return 0;
}

void ring_close(struct ring *ring)
{
	free(ring);
}

bool ring_has_tokens(struct ring *ring)
{
	(void)ring;
	return !simulation.no_tokens;
}

int ring_register_token(struct ring *ring, int dmabuf_fd, int file_fd)
{
	bool is_later = simulation.registrations > 0;
	int error = is_later && simulation.register_error_later ? simulation.register_error_later :
							       simulation.register_error;

	CHECK(dmabuf_fd >= 0 && file_fd >= 0);
	CHECK_EQUAL(simulation.in_flight, 0);
	if (server_has_ended(file_fd))
		return -ENOTCONN;
	if (error)
		return -error;
	ring->token_fd = file_fd;
	simulation.registrations++;
	if (is_later && simulation.end_again)
		simulation.end_request = simulation.requests + 1;
	simulation.is_revoked = is_later && simulation.revoke_again;
	return 0;
}

int ring_register_host(struct ring *ring, void *memory, size_t length)
{
	(void)ring;
	(void)memory;
	(void)length;
	return 0;
}

static void queue_operation(struct ring *ring, struct operation operation)
{
	CHECK(ring->queued < ring->depth);
	ring->queue[ring->queued++] = operation;
	simulation.requests++;
	if (++simulation.in_flight > simulation.max_in_flight)
		simulation.max_in_flight = simulation.in_flight;
	if ((int)simulation.requests == simulation.shrink_request)
		CHECK(!ftruncate(operation.fd, simulation.shrink_size));
	if (operation.has_token && (int)simulation.requests == simulation.revoke_request)
		simulation.is_revoked = true;
	if ((int)simulation.requests == simulation.end_request)
		simulate_end(operation.fd);
}

void ring_read_token(struct ring *ring, int fd, uint64_t buffer_offset, uint32_t length,
		     uint64_t file_offset, void *tag)
{
	queue_operation(ring, (struct operation){ simulation.memory + buffer_offset, fd, length,
						  file_offset, true, tag });
}

void ring_read_host(struct ring *ring, int fd, void *memory, uint32_t length, uint64_t file_offset,
		    void *tag)
{
	CHECK_EQUAL((uintptr_t)memory % BLOCK, 0);
	queue_operation(ring, (struct operation){ memory, fd, length, file_offset, false, tag });
}

int ring_wait(struct ring *ring)
{
	CHECK(ring->queued > 0);
	if (next_random(&simulation.random) % 100 < simulation.interrupt_percent)
		return -EINTR;
	ring->ready = 1 + next_random(&simulation.random) % ring->queued;
	return 0;
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
static int limit_to_data(const struct operation *operation, uint32_t *length)
{
	off_t hole;

	if (is_unwritten(operation->offset))
		return -ENXIO;
	for (uint32_t at = 0; at < *length; at += BLOCK)
		if (is_unwritten(operation->offset + at))
			*length = at;
	if (lseek(operation->fd, operation->offset, SEEK_DATA) != (off_t)operation->offset)
		return -ENXIO;
	hole = lseek(operation->fd, operation->offset, SEEK_HOLE);
	CHECK(hole > (off_t)operation->offset);
	*length = min_u64(*length, align_up(hole, BLOCK) - operation->offset);
	return 0;
}

static int carry_out(const struct ring *ring, const struct operation *operation)
{
	uint32_t length = operation->length;
	off_t size = lseek(operation->fd, 0, SEEK_END);

	CHECK_EQUAL(operation->offset % BLOCK, 0);
	CHECK_EQUAL(length % BLOCK, 0);
	CHECK(length > 0);
	if (operation->has_token && ring->token_fd != operation->fd)
		return -EBADF;
	if (operation->has_token && simulation.is_revoked)
		return -ESTALE;
	if (!operation->has_token && server_has_ended(operation->fd))
		return -ENOTCONN;
	if ((off_t)operation->offset >= size)
		return 0;
	if (operation->has_token && limit_to_data(operation, &length))
		return -ENXIO;
	if (simulation.short_reads && length > BLOCK)
		length = BLOCK * (1 + next_random(&simulation.random) % (length / BLOCK));
	return pread(operation->fd, operation->memory, length, operation->offset);
}

bool ring_next(struct ring *ring, void **tag, int *result)
{
	unsigned i;

	if (!ring->ready)
		return false;
	ring->ready--;
	i = next_random(&simulation.random) % ring->queued;
	*tag = ring->queue[i].tag;
	if (simulation.fail_error && (int)simulation.requests >= simulation.fail_request)
		*result = -simulation.fail_error;
	else if (next_random(&simulation.random) % 100 < simulation.again_percent)
		*result = -EAGAIN;
	else
		*result = carry_out(ring, &ring->queue[i]);
	ring->queue[i] = ring->queue[--ring->queued];
	simulation.in_flight--;
	return true;
}
