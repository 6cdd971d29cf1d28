/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Acting as nobody, to write data for all processes that have a file open. The kernel does all
 * writes by passthrough with the ids and capabilities of the thread that registered the backing
 * file. Writes of nobody get no block that ext4 or F2FS reserves for root, evade no quota, and
 * clear set-user-ID and set-group-ID bits of the file as the writes of a stranger do.
 */
#ifndef NOBODY_H
#define NOBODY_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Finds out whether the server can act as nobody. @source_is_local says that no other machine
 * decides who may open files of the source.
 */
void nobody_begin(bool source_is_local);

/*
 * Makes the calling thread act as nobody, with these capabilities, until identity_end(). Returns
 * false with errno set if the kernel refuses.
 */
bool nobody_assume(uint64_t capabilities);

#endif
