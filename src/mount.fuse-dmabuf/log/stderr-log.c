/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The log on stderr, which may be a terminal, a pipe, a file, or the journal's socket. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log/log.h"
#include "log/stderr-log.h"

/* In bytes: the longest text of log.c (4608), and room for the priority and the program's name. */
#define LINE_MAX_LENGTH 4800

static int fd = STDERR_FILENO;
static bool is_journal, is_socket;
static atomic_bool is_cut;      /* the last line was written in part, without its line feed */

void stderr_log_begin(void)
{
	const char *journal = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat attr;

	is_journal = journal && sscanf(journal, "%llu:%llu", &dev, &ino) == 2 &&
		     !fstat(STDERR_FILENO, &attr) && attr.st_dev == dev && attr.st_ino == ino;
}

/*
 * For a socket, each send() has MSG_DONTWAIT. A pipe or terminal is opened again with O_NONBLOCK:
 * set on the open file that the server got as stderr, the flag would hold for the shell, too.
 * Regular files need nothing: writing to them does not wait for a reader.
 */
void stderr_log_set_nonblocking(void)
{
	struct stat attr;
	int own = -1;

	if (fstat(STDERR_FILENO, &attr))
		return;
	is_socket = S_ISSOCK(attr.st_mode);
	if (S_ISFIFO(attr.st_mode) || S_ISCHR(attr.st_mode))
		own = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (own >= 0)
		fd = own;
}

static ssize_t write_bytes(const char *bytes, size_t length)
{
	if (is_socket)
		return send(fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
	return write(fd, bytes, length);
}

bool stderr_log_write(int level, const char *text)
{
	char line[LINE_MAX_LENGTH], priority[8] = "";
	ssize_t written;
	int length;

	if (is_journal)
		snprintf(priority, sizeof(priority), "<%d>", level);
	length = snprintf(line, sizeof(line), "%s%s" LOG_PROGRAM ": %s\n", is_cut ? "\n" : "",
			  priority, text);
	written = write_bytes(line, (size_t)length);
	if (written >= 0)
		is_cut = written < length;
	return written >= 0 || errno != EAGAIN;
}
