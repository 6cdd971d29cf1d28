/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "complain.h"
#include "control.h"

#define DIRECTORY "/run/fuse-dmabuf"

/* Seconds; a server that lives takes and gives its lines sooner. */
#define PATIENCE 5

static void set_patience(int fd)
{
	const struct timeval time = { .tv_sec = PATIENCE };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time));
}

/* -1: see errno. */
static int connect_to(unsigned int number)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), DIRECTORY "/%u.socket", number);
	if (fd >= 0)
		set_patience(fd);
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

/* Whatever the answer is. A server that is busy with a revocation has threads for others. */
static bool is_alive(unsigned int number)
{
	int fd = connect_to(number);
	json_t *request = json_pack("{s:s}", "command", "ping");
	char byte;
	bool alive;

	send_line(fd, request);
	alive = recv(fd, &byte, 1, 0) == 1;
	json_decref(request);
	if (fd >= 0)
		close(fd);
	return alive;
}

static void complain_of_silence(int fd)
{
	struct ucred server = { 0 };
	socklen_t size = sizeof(server);

	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &server, &size);
	complain("the server (pid %d) does not answer", server.pid);
}

/* False after a message. */
static bool wait_for_answer(int fd, unsigned int number, unsigned int limit)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	unsigned int waited = 0, next;

	while (!limit || waited < limit) {
		next = !limit || limit - waited > PATIENCE ? PATIENCE : limit - waited;
		if (poll(&poll_fd, 1, (int)next * 1000) > 0)
			return true;
		if (!is_alive(number)) {
			complain_of_silence(fd);
			return false;
		}
		waited += next;
	}
	complain("it takes longer than %u seconds; the server goes on with it", limit);
	return false;
}

/* For jansson, which asks for much at a time then: json_loadfd() takes each byte by itself. */
static size_t receive(void *buffer, size_t size, void *fd)
{
	return (size_t)recv(*(const int *)fd, buffer, size, 0);
}

/* NULL after a message. */
static json_t *exchange(int fd, unsigned int number, const json_t *request, unsigned int limit)
{
	json_t *answer;

	/* A server that has no room for more clients says so without waiting for the request. */
	send_line(fd, request);
	if (!wait_for_answer(fd, number, limit))
		return NULL;
	errno = 0;
	answer = json_load_callback(receive, &fd, JSON_DISABLE_EOF_CHECK, NULL);
	if (!answer && errno == EAGAIN) {
		complain_of_silence(fd);
	} else if (!answer) {
		complain("the server has not answered");
	} else if (!json_is_true(json_object_get(answer, "ok"))) {
		complain_of(answer);
		json_decref(answer);
		answer = NULL;
	}
	return answer;
}

json_t *ask_server_number(unsigned int number, json_t *request, unsigned int limit, bool *gone)
{
	int fd = connect_to(number);
	json_t *answer = NULL;

	*gone = fd < 0 && (errno == ECONNREFUSED || errno == ENOENT);
	if (fd >= 0) {
		answer = exchange(fd, number, request, limit);
		close(fd);
	} else if (!*gone) {
		/* EAGAIN: more clients wait for it than have room. */
		complain(DIRECTORY "/%u.socket: %s", number,
			 errno == EAGAIN ? "the server does not answer" : strerror(errno));
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

json_t *ask_server(const char *mountpoint, json_t *request, unsigned int limit)
{
	unsigned int number;
	json_t *answer;
	bool gone;

	if (!find_number(mountpoint, &number)) {
		json_decref(request);
		return NULL;
	}
	answer = ask_server_number(number, request, limit, &gone);
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
		if (!grown) {
			free(numbers);
			return NULL;
		}
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
