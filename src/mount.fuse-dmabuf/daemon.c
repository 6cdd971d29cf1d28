/* SPDX-License-Identifier: GPL-2.0-or-later */
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

/* The child's end of the pipe; -1 in the foreground. */
static int ready_fd = -1;

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
	/* _exit(): what stdio holds is the child's too. */
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
	/* The pipe tells by EPIPE if the parent was killed. */
	signal(SIGPIPE, SIG_IGN);
	return true;
}

/* Whoever reads mount's output waits until nobody holds it open. */
static void let_go_of_terminal(void)
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
	let_go_of_terminal();
	/* Not earlier: until it is mounted, autofs lets only the process group of systemd reach the mountpoint. */
	setsid();
	/* Keep no directory busy. */
	if (chdir("/"))
		log_warning("chdir /: %s", strerror(errno));
	written = write(ready_fd, "", 1);
	close(ready_fd);
	ready_fd = -1;
	return written == 1;
}
