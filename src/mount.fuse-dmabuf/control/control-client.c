/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Accepts clients of the control socket, and serves each in a thread of its own. */
#include <errno.h>
#include <linux/limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "control/control-answer.h"
#include "control/control-client.h"
#include "limits/descriptor-limit.h"
#include "log/log.h"

/* Bytes. A request is one line; the longest requests have a path. */
#define REQUEST_MAX 8192

/* For so long the server waits for a client that sends its request or takes its answer. */
#define REQUEST_MILLISECONDS 5000
#define ANSWER_MILLISECONDS 10000

/*
 * How many clients are served at a time. Only root's clients get the places above CLIENTS_MAX, so
 * that members of the group cannot keep root out.
 */
#define CLIENTS_MAX 16u
#define CLIENTS_MAX_ROOT 32u

struct client {
	TAILQ_ENTRY(client) link;
	int fd;
	struct ucred peer;
	char line[REQUEST_MAX];
	struct control_output output;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	TAILQ_HEAD(, client) all;
	unsigned int count;
} clients = {
	.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER,
	.all = TAILQ_HEAD_INITIALIZER(clients.all),
};

/* Waits for the event. Returns false when the deadline is over. */
static bool wait_for(int fd, short event, int64_t deadline)
{
	struct pollfd poll_fd = { .fd = fd, .events = event };
	int64_t left = deadline - monotonic_milliseconds();

	return left > 0 && poll(&poll_fd, 1, (int)left) > 0;
}

/*
 * Reads up to the line feed, or up to the end of what the client sends. Returns the length, or -1
 * if the client is too slow, sends too much or has gone.
 */
static ssize_t read_line(int fd, char *line)
{
	int64_t deadline = monotonic_milliseconds() + REQUEST_MILLISECONDS;
	size_t length = 0;
	const char *end;
	ssize_t got;

	while (length < REQUEST_MAX) {
		if (!wait_for(fd, POLLIN, deadline))
			return -1;
		got = recv(fd, line + length, REQUEST_MAX - length, MSG_DONTWAIT);
		if (got < 0)
			return -1;
		end = memchr(line + length, '\n', (size_t)got);
		if (end)
			return end - line;
		length += (size_t)got;
		if (!got)
			return (ssize_t)length;
	}
	return -1;
}

static void end_client(struct client *client)
{
	pthread_mutex_lock(&clients.lock);
	TAILQ_REMOVE(&clients.all, client, link);
	clients.count--;
	/* Closed under the lock, because control_client_end() uses the descriptor under it. */
	close(client->fd);
	pthread_cond_broadcast(&clients.changed);
	pthread_mutex_unlock(&clients.lock);
	free(client);
}

static void refuse_line(struct control_output *output)
{
	char *answer = control_answer_error("the request must be one line, sent at once");

	if (answer)
		control_output_add(output, answer, strlen(answer));
	free(answer);
}

static void *serve(void *data)
{
	struct client *client = data;
	ssize_t length;

	length = read_line(client->fd, client->line);
	control_output_begin(&client->output, client->fd, ANSWER_MILLISECONDS);
	if (length < 0)
		refuse_line(&client->output);
	else
		control_answer(client->line, (size_t)length, &client->peer, &client->output);
	control_output_end(&client->output);
	end_client(client);
	return NULL;
}

static bool add_client(struct client *client)
{
	unsigned int max = client->peer.uid ? CLIENTS_MAX : CLIENTS_MAX_ROOT;
	bool added;

	pthread_mutex_lock(&clients.lock);
	added = clients.count < max;
	if (added) {
		TAILQ_INSERT_TAIL(&clients.all, client, link);
		clients.count++;
	}
	pthread_mutex_unlock(&clients.lock);
	return added;
}

static bool has_group(const gid_t *groups, socklen_t size, gid_t group)
{
	for (size_t i = 0; i < size / sizeof(*groups); i++) {
		if (groups[i] == group)
			return true;
	}
	return false;
}

/*
 * Returns true if the peer is in the group (0: no group). Most users are in few groups, for which
 * the array on the stack is enough; NGROUPS_MAX is the most that a process can have.
 */
static bool is_in_group(int fd, const struct ucred *peer, gid_t group)
{
	gid_t few[1024], *groups = few;
	socklen_t size = sizeof(few);
	int error;
	bool in;

	if (!group || peer->gid == group)
		return group;
	error = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size);
	if (error && errno == ERANGE) {
		size = NGROUPS_MAX * sizeof(*groups);
		groups = malloc(size);
		error = groups ? getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) : -1;
	}
	in = !error && has_group(groups, size, group);
	if (groups != few)
		free(groups);
	return in;
}

static bool may_connect(int fd, struct ucred *peer, gid_t group)
{
	socklen_t size = sizeof(*peer);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &size) &&
	       (!peer->uid || is_in_group(fd, peer, group));
}

/*
 * Tells the client why it is not served, and closes the connection. Does not wait for the client:
 * it gets as much of the answer as fits into the socket's buffer.
 */
static void refuse(int fd, const char *reason)
{
	char *answer = control_answer_error(reason);

	if (answer && send(fd, answer, strlen(answer), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_message(LOG_DEBUG, "control: %s", strerror(errno));
	free(answer);
	close(fd);
}

/* Takes over the descriptor, which is closed when the client has been served or refused. */
static void begin_client(int fd, gid_t group)
{
	struct client *client;
	struct ucred peer;
	pthread_t thread;

	if (!may_connect(fd, &peer, group)) {
		refuse(fd, "only root and the control group may ask");
		return;
	}
	client = malloc(sizeof(*client));
	if (client) {
		client->fd = fd;
		client->peer = peer;
	}
	if (!client || !add_client(client)) {
		free(client);
		refuse(fd, "too many clients at the same time, try again");
	} else if (pthread_create(&thread, NULL, serve, client)) {
		end_client(client);
	} else {
		pthread_detach(thread);
	}
}

bool control_client_accept(int listen_fd, gid_t group)
{
	int fd;

	do {
		fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	} while (fd < 0 && may_open_again());
	if (fd >= 0)
		begin_client(fd, group);
	/* After other errors nothing waits: those clients have already gone. */
	return fd >= 0 ||
	       (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM);
}

void control_client_end(void)
{
	const struct client *client;

	pthread_mutex_lock(&clients.lock);
	TAILQ_FOREACH(client, &clients.all, link)
		shutdown(client->fd, SHUT_RDWR);
	while (!TAILQ_EMPTY(&clients.all))
		pthread_cond_wait(&clients.changed, &clients.lock);
	pthread_mutex_unlock(&clients.lock);
}
