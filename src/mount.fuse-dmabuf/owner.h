/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whose a token is: the user who registered, whoever has the ring or the file later. */
#ifndef OWNER_H
#define OWNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct inode;

struct owner {
	uid_t uid;
	gid_t gid;
	gid_t *groups;          /* supplementary ones */
	size_t group_count;
};

/*
 * Looks the groups of a process up. False: they are not known, see errno; EACCES: it has ended, or is not in a
 * pid namespace that the server sees. Whoever is taken for no member of a group escapes what is said about it.
 */
bool owner_read_groups(struct owner *owner, pid_t pid);
void owner_free(struct owner *owner);

bool owner_in_group(const struct owner *owner, gid_t gid);

/* The directions for which the owner could open the file now, by its mode and ACL. */
uint32_t owner_rights(const struct owner *owner, const struct inode *inode);

#endif
