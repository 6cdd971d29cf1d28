/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How many files each user has open, so that nobody's are why others can open none. */
#ifndef SHARE_H
#define SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* How many descriptors the process may have in all, and how many bytes of memory the machine has. */
void share_begin(size_t descriptors, uint64_t memory);

/* What costs the memory of so many open files. */
void share_add(uid_t uid, unsigned int count);
void share_remove(uid_t uid, unsigned int count);

/* Whether that user may open one more; otherwise it is said why not. */
bool share_is_left(uid_t uid);

#endif
