/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Acting as nobody: for data that is written for whoever has a file open. The kernel takes the ids and capabilities
 * of this moment for all writes by passthrough. As nobody they get no block that ext4 or F2FS keeps for root, pass
 * by no quota, and take set-user-ID and set-group-ID bits from the file as the writes of a stranger do.
 */
#ifndef NOBODY_H
#define NOBODY_H

#include <stdbool.h>
#include <stdint.h>

/* Finds out whether the server can act as nobody. @source_is_local: no other machine decides who may open its files. */
void nobody_begin(bool source_is_local);

/* The calling thread is nobody, with these capabilities, until identity_end(). False: see errno. */
bool nobody_assume(uint64_t capabilities);

#endif
