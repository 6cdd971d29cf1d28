/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What /proc tells of the programs. Of a /proc of the server's own: the one that everybody has may hide the processes
 * of others (hidepid) from who has no CAP_SYS_PTRACE, and the server has not.
 */
#ifndef PROCESSES_H
#define PROCESSES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Before privileges are dropped. False: explained in the log. */
bool processes_begin(void);
void processes_end(void);

/* The credentials of a process or thread as they are now. Numbers are those of the server's user namespace. */
struct process {
	uid_t fsuid;
	gid_t fsgid;
	uint64_t capabilities;  /* effective ones; what they are worth depends on its user namespace */
	size_t group_count;
	gid_t *groups;          /* .few, or allocated: process_free() */
	gid_t few[64];
};

/* Returns false with errno set if they cannot be read; ENOENT or ESRCH: there is no process with this number here. */
bool process_read(pid_t pid, struct process *process);
void process_free(struct process *process);

/* Without groups and capabilities, for process_free(). */
void process_clear(struct process *process);

/* Returns true if a process or thread is in the server's user namespace, so that its capabilities count as they are. */
bool user_namespace_is_own(pid_t pid);

/* Up to 340 lines of 33 bytes. */
#define USER_NAMESPACE_MAP_MAX 12288

/* The ids of another user namespace, as in /proc/PID/uid_map. */
struct user_namespace {
	char uids[USER_NAMESPACE_MAP_MAX], gids[USER_NAMESPACE_MAP_MAX];
};

/* Those of a process or thread. Returns false with errno set if they cannot be read. */
bool user_namespace_read(pid_t pid, struct user_namespace *user_namespace);

/* Return true if a user or group has an id in the namespace: its capabilities count for files whose both have. */
bool user_namespace_maps_user(const struct user_namespace *user_namespace, uid_t uid);
bool user_namespace_maps_group(const struct user_namespace *user_namespace, gid_t gid);

#endif
