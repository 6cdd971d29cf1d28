/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * transport/ brings the kernel's requests to the server, and the answers back: by reading the device, or by io_uring.
 * May call: limits, log.
 *
 * No other header of this folder is for others. The folder can be deleted when libfuse has what it lacks:
 * - Requests with opcodes that libfuse does not know reach the server. fuse_session_custom_io() shows them, but since
 *   3.18.3 only special builds of libfuse have it; so there is a loop of our own.
 * - FUSE over io_uring, as in libfuse 3.18 and later, with which a request that libfuse does not know reaches the
 *   server, too.
 * - Flags of INIT that libfuse does not know can be accepted.
 * - No more threads wait for requests than are kept busy.
 */
#ifndef TRANSPORT_H
#define TRANSPORT_H

#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * How many threads there may be. Requests wait for the disk (fsync, copies, big directories), so more than
 * processors. A thread is started only when all others are busy.
 */
#define TRANSPORT_THREADS_MAX 64u

/* What the server does beside the operations that libfuse knows. */
struct transport_server {
	/* Answers a request with transport_answer(). Returns false if the request is libfuse's. */
	bool (*answer)(int device, const void *request, size_t size);

	/* Flags of the second word in INIT that the server accepts if the kernel offers them. */
	uint32_t init_flags2;
};

/* Prepares to serve; both must last until transport_end(). Returns false if that fails; the log says why. */
bool transport_begin(struct fuse_session *session, const struct transport_server *server);
void transport_end(void);

/* Serves until the file system is unmounted, or a signal comes. Returns 0, or an errno that the log explains. */
int transport_run(void);

/*
 * Answers a request, in the way it came. Returns false if the kernel no longer waits for this answer, or the connection
 * has ended.
 */
bool transport_answer(int device, const struct fuse_in_header *header, int error, const void *body, size_t size);

/* Returns the body of a request, or NULL if the request does not have all of it. Extensions may follow the body. */
const void *transport_body(const struct fuse_in_header *header, size_t size, size_t wanted);

/*
 * Finds the number of a mount's connection, in /sys/fs/fuse/connections and as the minor number of the mount's device.
 * Returns false with errno set if that fails.
 */
bool connection_number(int device, const char *mountpoint, unsigned int *number);

#endif
