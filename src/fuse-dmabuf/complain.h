/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages of fuse-dmabuf on standard error. */
#ifndef COMPLAIN_H
#define COMPLAIN_H

/*
 * Prints "fuse-dmabuf: " and the message as one line. Control characters in the message become
 * question marks: names are chosen by others, and a terminal would obey them. Returns EXIT_FAILED.
 */
int complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
