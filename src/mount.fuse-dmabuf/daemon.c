/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The background process: the parent exits when the child has mounted. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon.h"
#include "log/log.h"
#include "options.h"

/* The end of the pipe that the child writes to, or -1: the server runs in the foreground. */
static int ready_fd = -1;

/* A child that ended before the mount worked has failed, also if it exited with 0. */
static int exit_code_of(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR)
			return EXIT_SYSTEM;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : EXIT_MOUNT;
}

static _Noreturn void wait_for_child(pid_t child, int fd)
{
	ssize_t got;
	char byte;

	do {
		got = read(fd, &byte, 1);
	} while (got < 0 && errno == EINTR);
	/* Not exit(): the child has the same stdio buffers, and would write them a second time. */
	_exit(got == 1 ? EXIT_SUCCESS : exit_code_of(child));
}

bool daemon_begin(void)
{
	int fds[2];
	pid_t child;

	if (pipe2(fds, O_CLOEXEC)) {
		log_error("pipe: %s", strerror(errno));
		return false;
	}
	child = fork();
	if (child < 0) {
		log_error("fork: %s", strerror(errno));
		return false;
	}
	if (child) {
		close(fds[1]);
		wait_for_child(child, fds[0]);
	}
	close(fds[0]);
	ready_fd = fds[1];
	/* If the parent was killed, daemon_ready() gets EPIPE. */
	signal(SIGPIPE, SIG_IGN);
	return true;
}

/*
 * Replaces stdin, stdout and stderr by /dev/null: a program that reads the output of mount(8) from
 * a pipe would wait as long as the daemon holds the pipe open.
 */
static void close_streams(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	for (int i = 0; i <= STDERR_FILENO; i++)
		dup2(fd, i);
	if (fd > STDERR_FILENO)
		close(fd);
}

bool daemon_ready(void)
{
	ssize_t written;

	if (ready_fd < 0)
		return true;
	log_to_syslog();
	close_streams();
	/*
	 * Not earlier: while an automount is pending, autofs lets only the process group of systemd
	 * reach the mountpoint, and a server outside of the group could not mount.
	 */
	setsid();
	/* A working directory keeps its file system from being unmounted. */
	if (chdir("/"))
		log_warning("chdir /: %s", strerror(errno));
	written = write(ready_fd, "", 1);
	close(ready_fd);
	ready_fd = -1;
	return written == 1;
}
