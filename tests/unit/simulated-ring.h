/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replaces the ring and file/filesystem.c in tests of the library: carries commands out with
 * pread(2) and pwrite(2), in random order, with the results that the kernel gives for tokens, and
 * the failures that a test asks for.
 */
#ifndef SIMULATED_RING_H
#define SIMULATED_RING_H

#include <stdbool.h>
#include <stdint.h>

#define FDS_MAX 128	/* of one process in a test */

/* A flag of descriptors that stand for those with O_DIRECT. Regular files ignore it. */
#define MARK_DIRECT O_NONBLOCK

struct simulation {
	unsigned long long random;	/* seed; not 0 */
	unsigned char *memory;		/* of the dma-buf with descriptor 0; others follow it, */
	uint64_t memory_size;		/* each with so many bytes */
	bool no_ring;			/* io_uring is not available */
	bool no_tokens;			/* a kernel without dma-buf tokens */
	bool no_vectors;		/* a kernel that takes no vectors of a token: EINVAL */
	bool no_direct_host;		/* O_DIRECT with bounce memory gets EINVAL */
	bool no_direct_pages;		/* O_DIRECT with the pages of a buffer gets EINVAL */
	const char *cached;		/* '#': a block that is in the page cache */
	bool cache_is_short;		/* 100 bytes at most come from the page cache */
	bool copies_wait;		/* copies from the page cache hang */
	bool no_write_token;		/* tokens are for reading: EACCES */
	unsigned lose_every;		/* each direct read of so many goes to memory elsewhere */
	bool lose_writes;		/* direct writes take other bytes than the buffer's */
	const char *unwritten;		/* '.': an unwritten block that lseek(2) reports as data */
	bool short_results;		/* commands end early, at a random block */
	unsigned again_percent;		/* % of results that are EAGAIN */
	unsigned interrupt_percent;	/* % of waits that return EINTR */
	bool short_bytes;		/* writes end early, in the middle of a block */
	bool hangs;			/* nothing completes, but what is cancelled */
	int hanging_fd;			/* commands on this descriptor hang; 0 = none */
	bool completes_alone;		/* and makes ring_fd() readable, not only in ring_wait() */
	/* Numbers of commands count from 1; 0 = never. */
	int fail_request, fail_error;	/* commands from this one on fail with this errno */
	uint64_t full_from;		/* writes end here, and fail with fail_error; 0 = nowhere */
	int sync_error;			/* errno of every RING_SYNC */
	int refuse_request;		/* direct commands from this one on fail with EOPNOTSUPP */
	int shrink_request;		/* the file shrinks when this one is queued */
	uint64_t shrink_size;
	int revoke_request;		/* its token is revoked when this one is queued */
	bool revoke_again;		/* each later token is revoked at once */
	int register_error;		/* errno of every registration */
	int register_error_later;	/* errno of every registration but the first */
	unsigned tokens_max;		/* more at a time get EDQUOT; 0 = no limit */
	int end_request;		/* the FUSE server ends when this one is queued */
	bool end_again;			/* each later server ends at its first command */
	bool not_fuse;			/* opened files are not on FUSE */
	int break_request;		/* the ring takes no commands when this one is queued */

	/* What has happened. */
	unsigned registrations, tokens, most_tokens;
	unsigned requests, in_flight, max_in_flight, cancelled, syncs, vectors;
	unsigned direct_reads, lost;	/* and how many of them went elsewhere */
	unsigned cache_looks;		/* questions what the page cache has, */
	unsigned copies;		/* and copies from there */
	unsigned direct_ios;		/* commands with the pages of a buffer */
	unsigned waits;			/* calls of ring_wait() */
	unsigned first_plain, last_block;	/* numbers of writes, by the page cache and not */
	unsigned most_pieces;		/* of a command */
	bool is_mixed;			/* writes of both kinds were in flight together */
	bool wrote_beside_sync;		/* a write and a RING_SYNC were in flight together */
	uint64_t largest;		/* command, in bytes */
	int fd;				/* of the last command */
	int synced[4];			/* descriptors of the last RING_SYNCs */
};

extern struct simulation simulation;

/* Ends the FUSE server of the mount that @fd is on. */
void simulate_end(int fd);

/* Makes all servers that have ended as if they had not. */
void simulate_return(void);

#endif
