/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Readers: limits how many threads wait for requests at the same time.
 *
 * The kernel wakes waiting threads in turn, and each switch to another thread, on a processor that
 * slept, costs more than most requests do. So a thread needs a permit to read a request, and there
 * are no more permits than the requests keep busy, usually one:
 *
 * - A thread that has a permit reads a request, answers it and reads again. No other thread is
 *   woken. The threads without a permit wait in readers_acquire_permit().
 * - A thread releases its permit when it has read a request that may wait for the disk. A monitor
 *   thread takes the permit from a thread that blocks unexpectedly. Either way another thread can
 *   read the next request.
 * - The monitor adds permits when it finds requests waiting again and again, and removes one when
 *   several threads wait for requests again and again.
 *
 * Each thread runs this loop:
 *
 *	readers_acquire_permit();
 *	size = read(device, request, ...);
 *	readers_note_request(request, size);
 *	(answer the request)
 */
#ifndef READERS_H
#define READERS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Starts the monitor thread. Returns false if that fails; the log says why. */
bool readers_begin(int device);

/* Ends the monitor thread. The threads that read must have ended. */
void readers_end(void);

/*
 * Waits until the calling thread has a permit, which it may still have from its last request. A
 * cancellation point.
 */
void readers_acquire_permit(void);

/* Gives the permit of the calling thread, which is about to wait and not to read, to another. */
void readers_release_permit(void);

/*
 * Tells that the calling thread has read a request of @size bytes, or that reading failed if @size
 * is not positive. Releases the permit if the request may wait for the disk.
 */
void readers_note_request(const void *request, ssize_t size);

#endif
