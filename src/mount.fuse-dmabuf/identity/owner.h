/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Owners of tokens. The owner is the user who registered, also if others have the ring or the file
 * later.
 */
#ifndef OWNER_H
#define OWNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * A process in more groups gets no token. User directories of large organisations allow about as
 * many groups.
 */
#define OWNER_GROUPS_MAX 1024

struct owner {
	uid_t uid;
	gid_t gid;
	const gid_t *groups;    /* supplementary; from groups_get() */
	size_t group_count;
	uint64_t capabilities;  /* of PRIVILEGES_OF_ACCESS, if they count for all files */
};

/*
 * Looks up the groups and capabilities of a process; @owner has its uid and gid already. The caller
 * frees with owner_free(). Returns false with errno set if they are not known: EACCES if the
 * process has ended, or is in no PID namespace that the server sees; E2BIG if the process is in
 * more than OWNER_GROUPS_MAX groups. The owner must not count as a member of no group then: rules
 * and limits for its groups would not apply to it.
 */
bool owner_read_process(struct owner *owner, pid_t pid);

/* Frees the groups of the owner, not @owner itself. */
void owner_free(struct owner *owner);

/* Returns true if @gid is the group, or a supplementary group, of the owner. */
bool owner_in_group(const struct owner *owner, gid_t gid);

/*
 * Returns how the owner could open the descriptor's file now, by the mode and ACL of the file:
 * R_OK, W_OK, both or 0.
 */
int owner_rights(const struct owner *owner, int fd);

#endif
