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

/* A server that hangs holds up nobody for longer. */
static void set_patience(int fd, unsigned int seconds)
{
	const struct timeval time = { .tv_sec = seconds };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time));
}

/* -1: see errno. */
static int connect_to(unsigned int number, unsigned int patience)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), DIRECTORY "/%u.socket", number);
	if (fd >= 0)
		set_patience(fd, patience);
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

/* Why the answer is a refusal; and of a revocation, what became of the tokens. */
static void complain_of(const json_t *answer)
{
	const char *error = json_string_value(json_object_get(answer, "error"));
	const json_t *failed = json_object_get(answer, "failed");

	if (!error)
		complain("the server gave an answer that is not understood");
	else if (failed)
		complain("%s: %lld tokens were revoked, %lld were not", error,
			 (long long)json_integer_value(json_object_get(answer, "revoked")),
			 (long long)json_integer_value(failed));
	else
		complain("%s", error);
}

/* NULL after a message. */
static json_t *exchange(int fd, const json_t *request)
{
	json_t *answer;

	/* A server that has no room for more clients says so without waiting for the request. */
	send_line(fd, request);
	errno = 0;
	answer = json_loadfd(fd, JSON_DISABLE_EOF_CHECK, NULL);
	if (!answer) {
		complain(errno == EAGAIN ? "the server does not answer" : "the server has not answered");
	} else if (!json_is_true(json_object_get(answer, "ok"))) {
		complain_of(answer);
		json_decref(answer);
		answer = NULL;
	}
	return answer;
}

json_t *ask_server_number(unsigned int number, json_t *request, unsigned int patience, bool *gone)
{
	int fd = connect_to(number, patience);
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

json_t *ask_server(const char *mountpoint, json_t *request, unsigned int patience)
{
	unsigned int number;
	json_t *answer;
	bool gone;

	if (!find_number(mountpoint, &number)) {
		json_decref(request);
		return NULL;
	}
	answer = ask_server_number(number, request, patience, &gone);
	if (gone)
		complain("%s: not on a mount of fuse-dmabuf, or its server has ended", mountpoint);
	return answer;
}

/* Of the sockets that are there; NULL: out of memory. */
static unsigned int *read_numbers(DIR *directory)
{
	unsigned int *numbers = calloc(1, sizeof(*numbers)), *grown;
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
	return numbers;
}

unsigned int *list_servers(void)
{
	DIR *directory = opendir(DIRECTORY);
	unsigned int *numbers;

	/* The first mount makes it. */
	if (!directory && errno != ENOENT) {
		complain(DIRECTORY ": %s", strerror(errno));
		return NULL;
	}
	numbers = read_numbers(directory);
	if (!numbers)
		complain("out of memory");
	if (directory)
		closedir(directory);
	return numbers;
}
