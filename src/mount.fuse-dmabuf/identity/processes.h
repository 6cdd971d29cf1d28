/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Credentials and user namespaces of processes, from /proc. The server has a /proc of its own,
 * because the system's /proc may hide the processes of other users (hidepid) from processes without
 * CAP_SYS_PTRACE, and the server is one of them.
 */
#ifndef PROCESSES_H
#define PROCESSES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Opens /proc. To be called before privileges_drop(). Returns false after the log has explained the
 * reason.
 */
bool processes_begin(void);

/* Closes /proc. */
void processes_end(void);

/*
 * Credentials of a process or thread at one moment. Ids are those in the server's user namespace.
 */
struct process {
	uid_t fsuid;
	gid_t fsgid;
	uint64_t capabilities;  /* effective; the user namespace decides where they count */
	size_t group_count;
	gid_t *groups;          /* .group_buffer, or allocated: process_free() */
	gid_t group_buffer[64];
};

/*
 * Reads the credentials; the caller frees with process_free(). Returns false with errno set if they
 * cannot be read: ENOENT or ESRCH if the server's PID namespace has no process with this number.
 */
bool process_read(pid_t pid, struct process *process);

/* Frees the groups, not @process itself. */
void process_free(struct process *process);

/* Initializes @process without groups and capabilities. It may be passed to process_free() then. */
void process_clear(struct process *process);

/*
 * Returns true if a process or thread is in the server's user namespace, where its capabilities
 * count for all files.
 */
bool user_namespace_is_own(pid_t pid);

/* In bytes: up to 340 lines of 33 bytes. */
#define USER_NAMESPACE_MAP_MAX 12288

/* The ids of another user namespace, as in /proc/PID/uid_map. */
struct user_namespace {
	char uids[USER_NAMESPACE_MAP_MAX], gids[USER_NAMESPACE_MAP_MAX];
};

/* Reads the ids for a process or thread. Returns false with errno set if they cannot be read. */
bool user_namespace_read(pid_t pid, struct user_namespace *user_namespace);

/*
 * Return true if a user or group has an id in the namespace. Capabilities of the namespace count
 * for files whose owner and group both have one.
 */
bool user_namespace_maps_user(const struct user_namespace *user_namespace, uid_t uid);
bool user_namespace_maps_group(const struct user_namespace *user_namespace, gid_t gid);

#endif
