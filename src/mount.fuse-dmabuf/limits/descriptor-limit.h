/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * limits/ keeps the server able to serve all users when some ask for much: it limits the server's
 * descriptors, the open files of each user, and the log lines that each user causes.
 * May call: log.
 */
#ifndef DESCRIPTOR_LIMIT_H
#define DESCRIPTOR_LIMIT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Raises RLIMIT_NOFILE as far as the system allows, because open files, and the nodes that the
 * kernel knows, hold descriptors. Returns the new limit.
 */
size_t descriptor_limit_raise(void);

/*
 * Sets the function that closes some descriptors that can be opened again later. The function
 * returns false if there are none.
 */
void descriptor_limit_set_reserve(bool (*close_some)(void));

/*
 * Returns true if the call that has just failed may be tried again: errno is EMFILE or ENFILE, and
 * some descriptors of the reserve were closed. Keeps errno.
 */
bool may_open_again(void);

/*
 * Returns @fd, the result of a call that opens a file. If the call failed for want of a descriptor,
 * the log explains the limit, and errno becomes ENFILE: EMFILE would mean that the program that
 * made the request has too many files open.
 */
int check_file_limit(int fd);

#endif
