/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control.h"
#include "control-answer.h"
#include "control-client.h"
#include "control-socket.h"
#include "kernel-tokens.h"
#include "log.h"
#include "policy-load.h"

static struct {
	const struct options *options;
	int stop_fd, signal_fd, listen_fd;
	unsigned int connection;
	pthread_t thread;
} control = { .stop_fd = -1, .signal_fd = -1, .listen_fd = -1 };

static void read_signals(void)
{
	struct signalfd_siginfo info;

	while (read(control.signal_fd, &info, sizeof(info)) == sizeof(info))
		policy_reload(control.options);
}

static void *attend(void *data)
{
	struct pollfd fds[] = {
		{ .fd = control.stop_fd, .events = POLLIN },
		{ .fd = control.signal_fd, .events = POLLIN },
		{ .fd = control.listen_fd, .events = POLLIN },
	};

	(void)data;
	while (!fds[0].revents) {
		if (poll(fds, 3, -1) < 0)
			continue;
		if (fds[1].revents)
			read_signals();
		if (fds[2].revents)
			control_client_accept(control.listen_fd, control.options->control_group);
	}
	return NULL;
}

/*
 * The number of the mount's device is that of its connection. What the kernel knows is enough: this server
 * does not answer yet.
 */
static bool find_connection(const char *mountpoint)
{
	struct statx attr;

	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &attr))
		return false;
	control.connection = attr.stx_dev_minor;
	return true;
}

static bool take_signals(void)
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

bool control_begin(const struct options *options, const char *mountpoint, int device)
{
	int error;

	control.options = options;
	if (!find_connection(mountpoint) || !take_signals()) {
		log_error("cannot prepare for control: %s", strerror(errno));
		return false;
	}
	kernel_tokens_begin(device, control.connection);
	control_answer_begin(options->source, mountpoint);
	control.listen_fd = control_socket_open(control.connection, options->control_group);
	error = pthread_create(&control.thread, NULL, attend, NULL);
	if (error)
		log_error("cannot start the thread for control: %s", strerror(error));
	return !error;
}

void control_end(void)
{
	static const uint64_t one = 1;

	if (write(control.stop_fd, &one, sizeof(one)) != sizeof(one))
		abort();
	pthread_join(control.thread, NULL);
	control_socket_close(control.listen_fd, control.connection);
	control_client_end();
	close(control.signal_fd);
	close(control.stop_fd);
}
