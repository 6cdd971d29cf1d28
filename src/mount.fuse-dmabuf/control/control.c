/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The two threads of control/: one reloads the policy for SIGHUP, the other accepts clients. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "broker/policy-load.h"
#include "control/control-client.h"
#include "control/control-socket.h"
#include "control/control-status.h"
#include "control/control.h"
#include "identity/privileges.h"
#include "log/log.h"

/* Time between two attempts to accept a client while there is no descriptor for it. */
#define NO_DESCRIPTOR_MILLISECONDS 100

static struct {
	const struct control_mount *mount;
	int stop_fd, signal_fd, listen_fd;
	/*
	 * Two threads, because a reload waits until the tokens that it revokes have no DMA in
	 * flight.
	 */
	pthread_t signals, clients;
} control = { .stop_fd = -1, .signal_fd = -1, .listen_fd = -1 };

/*
 * Waits until the descriptor is readable or the time is over (-1: no descriptor, no limit of time).
 * Returns false once control_end() has been called.
 */
static bool wait_for(int fd, int milliseconds)
{
	struct pollfd fds[] = {
		{ .fd = control.stop_fd, .events = POLLIN },
		{ .fd = fd, .events = POLLIN },
	};

	while (poll(fds, 2, milliseconds) < 0)
		continue;
	return !fds[0].revents;
}

static void *serve_signals(void *unused)
{
	struct signalfd_siginfo info;

	(void)unused;
	while (wait_for(control.signal_fd, -1)) {
		while (read(control.signal_fd, &info, sizeof(info)) == sizeof(info))
			policy_reload(control.mount->policy);
	}
	return NULL;
}

static void *serve_clients(void *unused)
{
	(void)unused;
	/*
	 * What strangers send is read and parsed without privileges. The clients' threads, which
	 * this thread starts, have none either.
	 */
	privileges_suspend();
	while (wait_for(control.listen_fd, -1)) {
		if (!control_client_accept(control.listen_fd, control.mount->group))
			wait_for(-1, NO_DESCRIPTOR_MILLISECONDS);
	}
	return NULL;
}

/* Blocks SIGHUP, and opens the descriptors by which it and the end are told to the threads. */
static bool prepare_signals(void)
{
	sigset_t hangup;

	sigemptyset(&hangup);
	sigaddset(&hangup, SIGHUP);
	if (pthread_sigmask(SIG_BLOCK, &hangup, NULL))
		return false;
	control.signal_fd = signalfd(-1, &hangup, SFD_CLOEXEC | SFD_NONBLOCK);
	control.stop_fd = eventfd(0, EFD_CLOEXEC);
	return control.signal_fd >= 0 && control.stop_fd >= 0;
}

/* Makes wait_for() return false in both threads. */
static void stop(void)
{
	static const uint64_t one = 1;

	if (write(control.stop_fd, &one, sizeof(one)) != sizeof(one))
		abort();
}

static int start_both(void)
{
	int error = pthread_create(&control.signals, NULL, serve_signals, NULL);

	if (error)
		return error;
	error = pthread_create(&control.clients, NULL, serve_clients, NULL);
	if (error) {
		stop();
		pthread_join(control.signals, NULL);
	}
	return error;
}

/*
 * Returns 0 or an errno. The threads, and those that they start, take no signals: SIGTERM is for
 * the main thread.
 */
static int start_threads(void)
{
	sigset_t all, previous;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &previous);
	error = start_both();
	pthread_sigmask(SIG_SETMASK, &previous, NULL);
	return error;
}

bool control_begin(const struct control_mount *mount)
{
	int error;

	control.mount = mount;
	if (!prepare_signals()) {
		log_error("cannot prepare for control: %s", strerror(errno));
		return false;
	}
	control_status_begin(mount->source, mount->mountpoint);
	control.listen_fd = control_socket_open(mount->connection, mount->group);
	error = start_threads();
	if (error) {
		log_error("cannot start the threads for control: %s", strerror(error));
		control_socket_close(control.listen_fd, control.mount->connection);
	}
	return !error;
}

void control_end(void)
{
	stop();
	pthread_join(control.signals, NULL);
	pthread_join(control.clients, NULL);
	control_socket_close(control.listen_fd, control.mount->connection);
	control_client_end();
	close(control.signal_fd);
	close(control.stop_fd);
}
