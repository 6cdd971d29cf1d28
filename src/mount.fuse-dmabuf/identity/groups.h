/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Shared lists of group ids. Equal lists are stored once, because tokens are many, and the lists of
 * their owners are few.
 */
#ifndef GROUPS_H
#define GROUPS_H

#include <stddef.h>
#include <sys/types.h>

/*
 * Returns the list with this content, to be released with groups_put(). Returns NULL if the list is
 * empty, or if memory is short.
 */
const gid_t *groups_get(const gid_t *gids, size_t count);

/* Releases a list. @groups may be NULL. */
void groups_put(const gid_t *groups);

#endif
