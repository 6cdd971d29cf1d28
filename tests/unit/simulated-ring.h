/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Takes ring.c's place in read-test: requests are carried out by pread(2) with the results that the
 * kernel's contract gives on tokens, in random order, and with the misfortunes that a test asks for.
 */
#ifndef SIMULATED_RING_H
#define SIMULATED_RING_H

#include <stdbool.h>
#include <stdint.h>

struct simulation {
	unsigned long long random;	/* seed; not 0 */
	unsigned char *memory;		/* behind the dma-buf */
	bool no_ring;			/* io_uring is switched off */
	bool no_tokens;			/* an ordinary kernel */
	const char *unwritten;		/* a '.' for each block that is unwritten, though lseek(2) sees data */
	bool short_reads;		/* requests end early, at a block, at random */
	unsigned again_percent;		/* EAGAIN instead of a result */
	unsigned interrupt_percent;	/* EINTR from the wait */
	int fail_request, fail_error;	/* the request with this number fails (counted from 1) */
	int shrink_request;		/* with this request the file shrinks to shrink_size */
	uint64_t shrink_size;
	int revoke_request;		/* with this request the token ends */
	bool revoke_again;		/* and each later token at once */
	int register_error;		/* what registrations give */
	int register_error_later;	/* and all but the first */
	int end_request;		/* with this request the FUSE server ends */
	bool end_again;			/* and each later one at the first request */
	bool not_fuse;			/* files that are opened are on another filesystem */

	/* what happened */
	unsigned registrations, requests, flying, most_flying;
	bool revoked;
	bool ended;
	int ended_fd;			/* the file on the mount whose server has ended */
};

extern struct simulation simulation;

/* The server of this file's mount ends, now. */
void simulate_end(int fd);

#endif
