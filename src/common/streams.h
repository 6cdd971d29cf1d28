/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Standard input, output and error of a program that is about to open files. */
#ifndef COMMON_STREAMS_H
#define COMMON_STREAMS_H

/*
 * Opens /dev/null for each of stdin, stdout and stderr that is closed: open() would give its number
 * to a file, and what is printed would be written there. @flags are open()'s: with O_RDONLY a
 * program is told (EBADF) that its output is lost, with O_RDWR the output is discarded.
 */
void open_missing_streams(int flags);

#endif
