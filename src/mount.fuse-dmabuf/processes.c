/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "descriptors.h"
#include "inode.h"
#include "log.h"
#include "processes.h"

/* 65536 groups of 10 digits, and the other lines. */
#define STATUS_MAX (1u << 20)

static int proc = -1;
static struct user_namespace own;

/* Reads a file of a process, and ends it with a 0. Returns its length, or -1 with errno set; E2BIG: no room. */
static ssize_t read_file(const char *process, const char *name, char *text, size_t room)
{
	ssize_t got = 1;
	size_t size = 0;
	char path[32];
	int fd, saved;

	snprintf(path, sizeof(path), "%s/%s", process, name);
	do {
		fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	} while (fd < 0 && descriptors_made_room());
	if (check_file_limit(fd) < 0)
		return -1;
	while (size < room && (got = read(fd, text + size, room - size)) > 0)
		size += (size_t)got;
	if (got > 0)
		errno = E2BIG;
	saved = errno;
	close(fd);
	errno = saved;
	if (got)
		return -1;
	text[size] = '\0';
	return (ssize_t)size;
}

static bool read_namespace(const char *process, struct user_namespace *read)
{
	return read_file(process, "uid_map", read->uids, sizeof(read->uids) - 1) >= 0 &&
	       read_file(process, "gid_map", read->gids, sizeof(read->gids) - 1) >= 0;
}

/* Mounted nowhere. */
static int new_proc(void)
{
	int context = fsopen("proc", FSOPEN_CLOEXEC), fd = -1;

	if (context < 0)
		return -1;
	if (!fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		fd = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY);
	close(context);
	return fd;
}

bool processes_begin(void)
{
	proc = new_proc();
	/* A container may not be allowed it. */
	if (proc < 0)
		proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0 || !read_namespace("self", &own)) {
		log_error("/proc: %s", strerror(errno));
		return false;
	}
	return true;
}

void processes_end(void)
{
	close(proc);
}

/* ---------------------------------------------------------------- credentials */

/* The number in the column behind a name at the beginning of a line. */
static bool find_number(const char *status, const char *name, unsigned int column, int base, uint64_t *number)
{
	const char *at = strstr(status, name);
	char *end;

	if (!at)
		return false;
	at += strlen(name);
	for (unsigned int i = 0; i <= column; i++, at = end) {
		errno = 0;
		*number = strtoull(at, &end, base);
		if (end == at || errno)
			return false;
	}
	return true;
}

static size_t count_words(const char *line)
{
	size_t count = 0;

	for (; *line && *line != '\n'; line++)
		count += *line >= '0' && *line <= '9' && (line[1] < '0' || line[1] > '9');
	return count;
}

/* "Groups:\t4 24 27 \n" */
static bool find_groups(const char *status, struct process *process)
{
	static const char name[] = "\nGroups:";
	const char *at = strstr(status, name);
	size_t count;
	char *end;

	if (!at)
		return false;
	at += strlen(name);
	count = count_words(at);
	if (count > sizeof(process->few) / sizeof(process->few[0])) {
		process->groups = malloc(count * sizeof(gid_t));
		if (!process->groups) {
			process->groups = process->few;
			errno = ENOMEM;
			return false;
		}
	}
	for (size_t i = 0; i < count; i++, at = end)
		process->groups[i] = (gid_t)strtoul(at, &end, 10);
	process->group_count = count;
	return true;
}

/* A name of a program cannot pretend to be a line: the kernel escapes what would end its own. */
static bool parse_status(const char *status, struct process *process)
{
	uint64_t fsuid, fsgid;

	errno = ESRCH;   /* a process that ends has less to say */
	if (!find_number(status, "\nUid:", 3, 10, &fsuid) || !find_number(status, "\nGid:", 3, 10, &fsgid) ||
	    !find_number(status, "\nCapEff:", 0, 16, &process->capabilities))
		return false;
	process->fsuid = (uid_t)fsuid;
	process->fsgid = (gid_t)fsgid;
	errno = ESRCH;
	return find_groups(status, process);
}

static bool read_and_parse(const char *number, struct process *process, char *text, size_t room)
{
	return read_file(number, "status", text, room) >= 0 && parse_status(text, process);
}

bool process_read(pid_t pid, struct process *process)
{
	char number[16], text[4096], *longer;
	bool read;

	process->groups = process->few;
	process->group_count = 0;
	snprintf(number, sizeof(number), "%d", pid);
	read = read_and_parse(number, process, text, sizeof(text) - 1);
	if (read || errno != E2BIG)
		return read;
	longer = malloc(STATUS_MAX);
	if (!longer) {
		errno = ENOMEM;
		return false;
	}
	read = read_and_parse(number, process, longer, STATUS_MAX - 1);
	free(longer);
	return read;
}

void process_free(struct process *process)
{
	if (process->groups != process->few)
		free(process->groups);
	process->groups = process->few;
	process->group_count = 0;
}

/* ---------------------------------------------------------------- user namespaces */

/*
 * A process may not see which namespace another is in, but its ids: as the server sees them, or, of the server's own
 * namespace, as the one above does. A namespace that has the same ids and is another can only be made by root, and
 * what its capabilities count for is the same.
 */
bool user_namespace_read(pid_t pid, struct user_namespace *user_namespace)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", pid);
	if (!read_namespace(number, user_namespace))
		return false;
	user_namespace->own = !strcmp(user_namespace->uids, own.uids) && !strcmp(user_namespace->gids, own.gids);
	return true;
}

/* Lines of "first id inside, first id outside, how many". */
static bool maps(const char *map, uint32_t id)
{
	unsigned long first, count;
	char *at = (char *)map;

	for (;;) {
		strtoul(at, &at, 10);
		first = strtoul(at, &at, 10);
		count = strtoul(at, &at, 10);
		if (!count)
			return false;
		if (id >= first && id - first < count)
			return true;
	}
}

bool user_namespace_maps(const struct user_namespace *user_namespace, const struct stat *attr)
{
	return user_namespace->own ||
	       (maps(user_namespace->uids, attr->st_uid) && maps(user_namespace->gids, attr->st_gid));
}
