/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replaces ring.c and filesystem.c in read-test: carries requests out with pread(2), in random
 * order, with the results that the kernel gives for tokens, and the failures that a test asks for.
 */
#ifndef SIMULATED_RING_H
#define SIMULATED_RING_H

#include <stdbool.h>
#include <stdint.h>

struct simulation {
	unsigned long long random;	/* seed; not 0 */
	unsigned char *memory;		/* of the dma-buf */
	bool no_ring;			/* io_uring is not available */
	bool no_tokens;			/* a kernel without dma-buf tokens */
	const char *unwritten;		/* '.': an unwritten block that lseek(2) reports as data */
	bool short_reads;		/* requests end early, at a random block */
	unsigned again_percent;		/* % of results that are EAGAIN */
	unsigned interrupt_percent;	/* % of waits that return EINTR */
	/* Numbers of requests count from 1; 0 = never. */
	int fail_request, fail_error;	/* requests from this one on fail with this errno */
	int shrink_request;		/* the file shrinks when this one is queued */
	uint64_t shrink_size;
	int revoke_request;		/* the token is revoked when this one is queued */
	bool revoke_again;		/* each later token is revoked at once */
	int register_error;		/* errno of every registration */
	int register_error_later;	/* errno of every registration but the first */
	int end_request;		/* the FUSE server ends when this one is queued */
	bool end_again;			/* each later server ends at its first request */
	bool not_fuse;			/* opened files are not on FUSE */

	/* What has happened. */
	unsigned registrations, requests, in_flight, max_in_flight;
	bool is_revoked;
	bool has_ended;
	int ended_fd;			/* the file on the mount whose server has ended */
};

extern struct simulation simulation;

/* Ends the FUSE server of the mount that @fd is on. */
void simulate_end(int fd);

#endif
