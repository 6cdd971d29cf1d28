/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Credentials and user namespaces of processes: reads and parses files of /proc. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "identity/processes.h"
#include "limits/descriptor-limit.h"
#include "log/log.h"

/* In bytes: 65536 groups of 10 digits, and the other lines. */
#define STATUS_MAX (1u << 20)

static int proc = -1;

/*
 * Projects are read, too. Nobody uses their ids in a namespace, but a namespace that was given all
 * ids of users and groups rarely has those of projects, so they tell it from the server's own.
 */
static const char *const map_names[] = { "uid_map", "gid_map", "projid_map" };

static char own_maps[3][USER_NAMESPACE_MAP_MAX];

static int open_file(const char *process, const char *name)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", process, name);
	do {
		fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	} while (fd < 0 && may_open_again());
	return check_file_limit(fd);
}

/*
 * Reads a file until @last was read, or to its end if @last is NULL or missing, and terminates the
 * text with a 0 byte, for which @room does not count. Returns false with errno set on failure:
 * E2BIG if the room is too small.
 */
static bool read_until(int fd, const char *last, char *text, size_t room)
{
	size_t size = 0;
	ssize_t got;

	while (size < room) {
		got = read(fd, text + size, room - size);
		if (got < 0)
			return false;
		size += (size_t)got;
		text[size] = '\0';
		/* With @last, most often no further system call is needed to see the end. */
		if (!got || (last && strstr(text, last)))
			return true;
	}
	errno = E2BIG;
	return false;
}

/* Reads a file of a process as read_until() does. One byte of @size is for the 0. */
static bool read_file(const char *process, const char *name, const char *last, char *text,
		      size_t size)
{
	int fd = open_file(process, name), saved;
	bool read;

	if (fd < 0)
		return false;
	read = read_until(fd, last, text, size - 1);
	saved = errno;
	close(fd);
	errno = saved;
	return read;
}

static bool read_own_maps(void)
{
	for (int i = 0; i < 3; i++) {
		if (!read_file("self", map_names[i], NULL, own_maps[i], sizeof(own_maps[i])))
			return false;
	}
	return true;
}

/* Returns a descriptor of a new /proc that is mounted nowhere, or -1 with errno set. */
static int create_proc(void)
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
	proc = create_proc();
	/* A container may not be allowed to create one. */
	if (proc < 0)
		proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0 || !read_own_maps()) {
		log_error("cannot read /proc: %s", strerror(errno));
		return false;
	}
	return true;
}

void processes_end(void)
{
	close(proc);
}

/* ---------------------------------------------------------------- credentials */

/*
 * Reads the number in a column of the line that begins with @name; columns count from 0 after the
 * name. Returns false if there is none.
 */
static bool find_number(const char *status, const char *name, unsigned int column, int base,
			uint64_t *number)
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

static size_t count_numbers(const char *line)
{
	size_t count = 0;

	for (; *line && *line != '\n'; line++)
		count += *line >= '0' && *line <= '9' && (line[1] < '0' || line[1] > '9');
	return count;
}

/* Reads the groups from a line "Groups:\t4 24 27 \n". */
static bool find_groups(const char *status, struct process *process)
{
	static const char name[] = "\nGroups:";
	const char *at = strstr(status, name);
	size_t count;
	char *end;

	if (!at)
		return false;
	at += strlen(name);
	count = count_numbers(at);
	if (count > sizeof(process->group_buffer) / sizeof(process->group_buffer[0])) {
		process->groups = malloc(count * sizeof(gid_t));
		if (!process->groups) {
			process->groups = process->group_buffer;
			errno = ENOMEM;
			return false;
		}
	}
	for (size_t i = 0; i < count; i++, at = end)
		process->groups[i] = (gid_t)strtoul(at, &end, 10);
	process->group_count = count;
	return true;
}

/* The name of a program cannot forge a line: the kernel escapes newlines in the name. */
static bool parse_status(const char *status, struct process *process)
{
	uint64_t fsuid, fsgid;

	errno = ESRCH;   /* the status of a process that ends has fewer lines */
	if (!find_number(status, "\nUid:", 3, 10, &fsuid) ||
	    !find_number(status, "\nGid:", 3, 10, &fsgid) ||
	    !find_number(status, "\nCapEff:", 0, 16, &process->capabilities))
		return false;
	process->fsuid = (uid_t)fsuid;
	process->fsgid = (gid_t)fsgid;
	errno = ESRCH;
	return find_groups(status, process);
}

static bool read_and_parse(const char *number, struct process *process, char *text, size_t size)
{
	/* "CapBnd:" begins the line after the last one that is needed. */
	return read_file(number, "status", "\nCapBnd:", text, size) && parse_status(text, process);
}

bool process_read(pid_t pid, struct process *process)
{
	char number[16], text[4096], *longer;
	bool read;

	process_clear(process);
	snprintf(number, sizeof(number), "%d", pid);
	read = read_and_parse(number, process, text, sizeof(text));
	if (read || errno != E2BIG)
		return read;
	longer = malloc(STATUS_MAX);
	if (!longer) {
		errno = ENOMEM;
		return false;
	}
	read = read_and_parse(number, process, longer, STATUS_MAX);
	free(longer);
	return read;
}

void process_clear(struct process *process)
{
	process->capabilities = 0;
	process->groups = process->group_buffer;
	process->group_count = 0;
}

void process_free(struct process *process)
{
	if (process->groups != process->group_buffer)
		free(process->groups);
	process_clear(process);
}

/* ---------------------------------------------------------------- user namespaces */

static bool has_own_map(const char *process, int map)
{
	char text[USER_NAMESPACE_MAP_MAX];

	return read_file(process, map_names[map], *own_maps[map] ? own_maps[map] : NULL,
			 text, sizeof(text)) &&
	       !strcmp(text, own_maps[map]);
}

/*
 * The server may not see which namespace another process is in, but it may see the id maps of the
 * namespace. The kernel shows them with ids of the server's namespace; those of the server's own
 * namespace, with ids of the namespace above. Only root can make another namespace whose maps look
 * the same.
 */
bool user_namespace_is_own(pid_t pid)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", pid);
	return has_own_map(number, 0) && has_own_map(number, 1) && has_own_map(number, 2);
}

bool user_namespace_read(pid_t pid, struct user_namespace *user_namespace)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", pid);
	return read_file(number, map_names[0], NULL,
			 user_namespace->uids, sizeof(user_namespace->uids)) &&
	       read_file(number, map_names[1], NULL,
			 user_namespace->gids, sizeof(user_namespace->gids));
}

/* Returns true if @id is mapped. @map has lines of "first id inside, first id outside, count". */
static bool maps_id(const char *map, uint32_t id)
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

bool user_namespace_maps_user(const struct user_namespace *user_namespace, uid_t uid)
{
	return maps_id(user_namespace->uids, uid);
}

bool user_namespace_maps_group(const struct user_namespace *user_namespace, gid_t gid)
{
	return maps_id(user_namespace->gids, gid);
}
