/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The client of the control sockets: sends a request to a server and reads its answer. */
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

#define SOCKET_DIRECTORY "/run/fuse-dmabuf"

/* Seconds. A server that is not stopped reads and writes its lines sooner. */
#define ANSWER_TIMEOUT 5

static void set_timeouts(int fd)
{
	const struct timeval time = { .tv_sec = ANSWER_TIMEOUT };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time));
}

/* Returns the connected socket, or -1 with errno set. */
static int connect_to_server(unsigned int number)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), SOCKET_DIRECTORY "/%u.socket", number);
	if (fd >= 0)
		set_timeouts(fd);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address))) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

/* Returns false if the request cannot be sent. */
static bool send_line(int fd, const json_t *request)
{
	char *text = json_dumps(request, JSON_COMPACT);
	size_t length = text ? strlen(text) : 0;
	bool sent = length && send(fd, text, length, MSG_NOSIGNAL) == (ssize_t)length &&
		    send(fd, "\n", 1, MSG_NOSIGNAL) == 1;

	free(text);
	return sent;
}

/* Says why the server refuses, and after a revocation how many tokens were and were not revoked. */
static void complain_about_refusal(const json_t *answer)
{
	const char *error = json_string_value(json_object_get(answer, "error"));
	const json_t *failed = json_object_get(answer, "failed");

	if (!error)
		complain("the server's answer is not understood");
	else if (failed)
		complain("%s: %lld tokens were revoked, %lld were not", error,
			 (long long)json_integer_value(json_object_get(answer, "revoked")),
			 (long long)json_integer_value(failed));
	else
		complain("%s", error);
}

/*
 * Returns true if the server answers a ping, with whatever answer. A server that is busy with a
 * revocation answers as well: it has other threads for other clients.
 */
static bool is_answering(unsigned int number)
{
	int fd = connect_to_server(number);
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

static void complain_about_silence(int fd)
{
	struct ucred server = { 0 };
	socklen_t size = sizeof(server);

	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &server, &size);
	complain("the server (pid %d) does not answer", server.pid);
}

/* Waits for @limit seconds, or without an end if 0. Returns false after a message. */
static bool wait_for_answer(int fd, unsigned int number, unsigned int limit)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	unsigned int waited = 0, next;

	while (!limit || waited < limit) {
		next = !limit || limit - waited > ANSWER_TIMEOUT ? ANSWER_TIMEOUT : limit - waited;
		if (poll(&poll_fd, 1, (int)next * 1000) > 0)
			return true;
		if (!is_answering(number)) {
			complain_about_silence(fd);
			return false;
		}
		waited += next;
	}
	complain("no answer within %u seconds; the server continues with the request", limit);
	return false;
}

/* Reads for json_load_callback(), many bytes at a time; json_loadfd() reads them one by one. */
static size_t receive(void *buffer, size_t size, void *fd)
{
	return (size_t)recv(*(const int *)fd, buffer, size, 0);
}

/* Returns the answer, for json_decref(), or NULL after a message. */
static json_t *request_answer(int fd, unsigned int number, const json_t *request,
			      unsigned int limit)
{
	json_t *answer;

	/*
	 * A failure is ignored: a server with no room for more clients answers that, and ends the
	 * connection, without waiting for the request.
	 */
	send_line(fd, request);
	if (!wait_for_answer(fd, number, limit))
		return NULL;
	errno = 0;
	answer = json_load_callback(receive, &fd, JSON_DISABLE_EOF_CHECK, NULL);
	if (!answer && errno == EAGAIN) {
		complain_about_silence(fd);
	} else if (!answer) {
		complain("the server has not answered");
	} else if (!json_is_true(json_object_get(answer, "ok"))) {
		complain_about_refusal(answer);
		json_decref(answer);
		answer = NULL;
	}
	return answer;
}

json_t *ask_server_number(unsigned int number, json_t *request, unsigned int limit, bool *gone)
{
	int fd = connect_to_server(number);
	json_t *answer = NULL;

	*gone = fd < 0 && (errno == ECONNREFUSED || errno == ENOENT);
	if (fd >= 0) {
		answer = request_answer(fd, number, request, limit);
		close(fd);
	} else if (!*gone) {
		/* EAGAIN: the queue of clients that wait for the server is full. */
		complain(SOCKET_DIRECTORY "/%u.socket: %s", number,
			 errno == EAGAIN ? "the server does not answer" : strerror(errno));
	}
	json_decref(request);
	return answer;
}

/*
 * Sets *number to the minor device number of the mount. AT_STATX_DONT_SYNC takes the number from
 * the kernel: a server that hangs would not answer. Returns false after a message.
 */
static bool find_server_number(const char *mountpoint, unsigned int *number)
{
	struct statx attr;

	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC, STATX_TYPE, &attr)) {
		complain("%s: %s", mountpoint, strerror(errno));
		return false;
	}
	*number = attr.stx_dev_minor;
	/* A FUSE mount has no device, and so the major number 0. */
	return !attr.stx_dev_major ||
	       (complain("%s: not on a mount of fuse-dmabuf", mountpoint), false);
}

json_t *ask_server(const char *mountpoint, json_t *request, unsigned int limit)
{
	unsigned int number;
	json_t *answer;
	bool gone;

	if (!find_server_number(mountpoint, &number)) {
		json_decref(request);
		return NULL;
	}
	answer = ask_server_number(number, request, limit, &gone);
	if (gone)
		complain("%s: not on a mount of fuse-dmabuf, or its server has ended", mountpoint);
	return answer;
}

/* Returns the numbers of all sockets in the directory, ended by 0, or NULL if out of memory. */
static unsigned int *read_server_numbers(DIR *directory)
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
	DIR *directory = opendir(SOCKET_DIRECTORY);
	unsigned int *numbers;

	/* The first mount creates the directory. */
	if (!directory && errno != ENOENT) {
		complain(SOCKET_DIRECTORY ": %s", strerror(errno));
		return NULL;
	}
	numbers = read_server_numbers(directory);
	if (!numbers)
		complain("out of memory");
	if (directory)
		closedir(directory);
	return numbers;
}
