/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whose a token is: the user who registered, whoever has the ring or the file later. */
#ifndef OWNER_H
#define OWNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* No token for who is in more: directories of users of large organisations allow about as many. */
#define OWNER_GROUPS_MAX 1024

struct owner {
	uid_t uid;
	gid_t gid;
	const gid_t *groups;    /* supplementary ones: groups_get() */
	size_t group_count;
	uint64_t capabilities;  /* of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH those that count for all files */
};

/*
 * Looks the groups and capabilities of a process up. False: they are not known, see errno; EACCES: it has ended, or is
 * not in a PID namespace that the server sees; E2BIG: it is in more than OWNER_GROUPS_MAX groups. Whoever is taken for
 * no member of a group escapes what is said about it.
 */
bool owner_read_process(struct owner *owner, pid_t pid);
void owner_free(struct owner *owner);

bool owner_in_group(const struct owner *owner, gid_t gid);

/* Returns for what the owner could open the descriptor's file now, by its mode and ACL: R_OK, W_OK, both or 0. */
int owner_rights(const struct owner *owner, int fd);

#endif
