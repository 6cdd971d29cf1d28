/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lists of groups. Equal ones are one: tokens are many, and the groups of those who hold them are few. */
#ifndef GROUPS_H
#define GROUPS_H

#include <stddef.h>
#include <sys/types.h>

/* The list with this content, for groups_put(). NULL: out of memory, or it is empty. */
const gid_t *groups_get(const gid_t *gids, size_t count);

/* May be NULL. */
void groups_put(const gid_t *groups);

#endif
