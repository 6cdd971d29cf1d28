/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Answers STATX, which libfuse does not know. The kernel sends it when a program asks for the time
 * at which a file was created.
 */
#ifndef STATX_H
#define STATX_H

#include <stdbool.h>
#include <stddef.h>

/* Answers the request on the device it came from. Returns false if it is another request. */
bool statx_answer(int device, const void *request, size_t size);

#endif
