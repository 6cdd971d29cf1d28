/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * transport/ brings the kernel's requests to the server, and the answers back, by reading and
 * writing the device or by io_uring.
 * May call: limits, log.
 *
 * Other folders include no other header of this folder. The folder can be deleted when libfuse has
 * what it lacks today:
 * - Requests with opcodes that libfuse does not know reach the server. fuse_session_custom_io()
 *   shows them, but since 3.18.3 only special builds of libfuse have that function; so transport/
 *   has a loop of its own.
 * - FUSE over io_uring, as in libfuse 3.18 and later, but requests that libfuse does not know reach
 *   the server, too.
 * - The server can accept flags of INIT that libfuse does not know.
 * - No more threads wait for requests than the requests keep busy.
 */
#ifndef TRANSPORT_H
#define TRANSPORT_H

#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The number of threads is limited to this. Requests wait for the disk (fsync, copies, big
 * directories), so there may be more threads than processors. A thread is started only when all
 * others are busy.
 */
#define TRANSPORT_THREADS_MAX 64u

/* What the server does beside the operations that libfuse knows. */
struct transport_server {
	/* Answers a request with transport_answer(). Returns false if libfuse must answer it. */
	bool (*answer)(int device, const void *request, size_t size);

	/* Flags of the second word in INIT that the server accepts if the kernel offers them. */
	uint32_t init_flags2;
};

/*
 * Prepares to serve; @session and @server must last until transport_end(). Returns false if that
 * fails; the log says why.
 */
bool transport_begin(struct fuse_session *session, const struct transport_server *server);
void transport_end(void);

/*
 * Serves until the file system is unmounted, or the server gets SIGTERM or SIGINT. Returns 0, or an
 * errno that the log explains.
 */
int transport_run(void);

/*
 * Answers a request by the way by which the request came. Returns false if the kernel no longer
 * waits for this answer, or the connection has ended.
 */
bool transport_answer(int device, const struct fuse_in_header *header, int error, const void *body,
		      size_t size);

/*
 * Returns the body of a request of @size bytes, or NULL if the body has less than @wanted bytes.
 * Extensions may follow the body.
 */
const void *transport_body(const struct fuse_in_header *header, size_t size, size_t wanted);

/*
 * Finds the number of a mount's connection, as in /sys/fs/fuse/connections and in the minor number
 * of the mount's device. Returns false with errno set if that fails.
 */
bool connection_find_number(int device, const char *mountpoint, unsigned int *number);

#endif
