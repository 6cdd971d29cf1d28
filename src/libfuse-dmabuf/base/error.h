/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * base/ has what the other folders share: errors, forks, counted objects, structs of other
 * versions, and small inline functions. This header sets the text of the last failure.
 * May call: nothing.
 */
#ifndef FDMABUF_ERROR_H
#define FDMABUF_ERROR_H

#include <errno.h>

/* Bytes of a text with its NUL: room for an ordinary path, the cause and the cure. */
#define ERROR_TEXT_SIZE 1024

/* Sets the text that fdmabuf_error() returns, cut to ERROR_TEXT_SIZE, and returns -@error. */
int fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
