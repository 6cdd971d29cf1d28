/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Limits the open files of each user, so that no user can keep the others from opening any. */
#ifndef OPEN_QUOTA_H
#define OPEN_QUOTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Sets how many files may be open in all. @descriptors is the limit of the process, @memory is the
 * memory of the machine in bytes.
 */
void open_quota_begin(size_t descriptors, uint64_t memory);

/* Counts something that costs as much memory as @count open files of the user. */
void open_quota_add(uid_t uid, unsigned int count);

/* Takes away what open_quota_add() counted. */
void open_quota_remove(uid_t uid, unsigned int count);

/* Returns true if the user may open one more file. Otherwise the log says why not. */
bool open_quota_is_left(uid_t uid);

#endif
