/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * queue/ moves data between files and buffers. This header has the state of a queue.
 * May call: base, buffer, file, ring.
 */
#ifndef FDMABUF_QUEUE_H
#define FDMABUF_QUEUE_H

#include "queue/pair.h"
#include "queue/request.h"
#include "ring/ring.h"

/* Exporters, each of which pins the bounce memory for its own devices. */
#define HOST_PINS_MAX 4u

struct copiers;

struct fdmabuf_queue {
	struct ring *ring;
	unsigned forks;			/* fork_count() of the process that opened the queue */
	struct pair_table pairs;
	enum fdmabuf_path wanted_path;
	enum fdmabuf_proof proof;
	uint32_t depth, chunk;		/* requests, bytes */
	uint32_t mount_wait;		/* ms; 0 = do not wait */
	bool has_vectors;		/* the kernel takes vectors of a token, as far as we know */
	bool vectors_are_proven;	/* one has succeeded */
	int broken;			/* the errno of a ring that takes no more requests, or 0 */

	struct request *requests;	/* array of depth elements */
	struct request_list free, ready;
	struct iovec *vectors;		/* depth times PIECES_MAX; NULL until needed */

	unsigned char *host;		/* bounce memory; NULL until needed */
	uint32_t host_depth, host_chunk;
	unsigned *host_free, host_free_count;	/* an array of host_depth numbers */
	struct {
		const struct exporter *exporter;
		struct host_pin *pin;	/* NULL if the exporter does not pin memory */
	} host_pins[HOST_PINS_MAX];
	unsigned host_pin_count;

	uint32_t copy_threads;		/* at most; 0 = as many as help */
	struct copiers *copiers;	/* NULL until needed */
	struct request_list copied;	/* in the thread of the queue */

	struct fdmabuf_transfer *active, *finished;
	struct fdmabuf_transfer **active_end, **finished_end;
	unsigned finished_count;	/* those that fdmabuf_queue_next() has not returned */
	uint64_t ended_count;		/* of transfers, since the queue was opened */
	bool has_last_report;		/* due, of a transfer that has finished */
	unsigned in_flight;		/* requests */
	int64_t submit_again;		/* after the kernel lacked memory; monotonic ms; else 0 */
	bool has_more_to_do;		/* in this pass */

	int event_fd;			/* an epoll instance; -1 until fdmabuf_queue_fd() */
	int timer_fd;			/* is readable when fdmabuf_queue_poll() is to be called */
	int64_t timer;			/* when, in monotonic ms; 0 = never */
	uint64_t random;		/* state of the marks' numbers; 0 = not yet begun */
	struct fdmabuf_counters counters;
};

#endif
