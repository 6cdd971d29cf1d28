/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How many files each user has open, so that nobody's are why others can open none. */
#ifndef OPEN_QUOTA_H
#define OPEN_QUOTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* How many descriptors the process may have in all, and how many bytes of memory the machine has. */
void open_quota_begin(size_t descriptors, uint64_t memory);

/* What costs the memory of so many open files. */
void open_quota_add(uid_t uid, unsigned int count);
void open_quota_remove(uid_t uid, unsigned int count);

/* Whether that user may open one more; otherwise it is said why not. */
bool open_quota_is_left(uid_t uid);

#endif
