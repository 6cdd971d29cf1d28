/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "command.h"
#include "control.h"

#define DIRECTORY "/run/fuse-dmabuf"

/* -1: see errno. */
static int connect_to(unsigned int number)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), DIRECTORY "/%u.socket", number);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address))) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

static bool send_line(int fd, const json_t *request)
{
	char *text = json_dumps(request, JSON_COMPACT);
	size_t length = text ? strlen(text) : 0;
	bool sent = length && send(fd, text, length, MSG_NOSIGNAL) == (ssize_t)length &&
		    send(fd, "\n", 1, MSG_NOSIGNAL) == 1;

	free(text);
	return sent;
}

/* NULL after a message. */
static json_t *exchange(int fd, const json_t *request)
{
	json_t *answer;

	/* A server that has no room for more clients says so without waiting for the request. */
	send_line(fd, request);
	answer = json_loadfd(fd, JSON_DISABLE_EOF_CHECK, NULL);
	if (!answer) {
		complain("the server has not answered");
	} else if (!json_is_true(json_object_get(answer, "ok"))) {
		const char *error = json_string_value(json_object_get(answer, "error"));

		complain("%s", error ? error : "the server gave an answer that is not understood");
		json_decref(answer);
		answer = NULL;
	}
	return answer;
}

json_t *ask_server_number(unsigned int number, json_t *request, bool *gone)
{
	int fd = connect_to(number);
	json_t *answer = NULL;

	*gone = fd < 0 && (errno == ECONNREFUSED || errno == ENOENT);
	if (fd >= 0) {
		answer = exchange(fd, request);
		close(fd);
	} else if (!*gone) {
		complain(DIRECTORY "/%u.socket: %s", number, strerror(errno));
	}
	json_decref(request);
	return answer;
}

/* The kernel knows what is wanted: a server that hangs is not asked. */
static bool find_number(const char *mountpoint, unsigned int *number)
{
	struct statx attr;

	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC, STATX_TYPE, &attr)) {
		complain("%s: %s", mountpoint, strerror(errno));
		return false;
	}
	*number = attr.stx_dev_minor;
	/* Of a file system without a device. */
	return !attr.stx_dev_major || (complain("%s: not on a mount of fuse-dmabuf", mountpoint), false);
}

json_t *ask_server(const char *mountpoint, json_t *request)
{
	unsigned int number;
	json_t *answer;
	bool gone;

	if (!find_number(mountpoint, &number)) {
		json_decref(request);
		return NULL;
	}
	answer = ask_server_number(number, request, &gone);
	if (gone)
		complain("%s: not on a mount of fuse-dmabuf, or its server has ended", mountpoint);
	return answer;
}

unsigned int *list_servers(void)
{
	unsigned int *numbers = calloc(1, sizeof(*numbers)), *grown;
	DIR *directory = opendir(DIRECTORY);
	const struct dirent *entry;
	size_t count = 0;

	while (numbers && directory && (entry = readdir(directory))) {
		if (sscanf(entry->d_name, "%u.socket", &numbers[count]) != 1)
			continue;
		grown = realloc(numbers, (++count + 1) * sizeof(*numbers));
		if (!grown)
			break;
		numbers = grown;
	}
	if (numbers)
		numbers[count] = 0;
	if (directory)
		closedir(directory);
	return numbers;
}
