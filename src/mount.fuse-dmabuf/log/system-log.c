/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The log on the socket /dev/log, in the format of syslog(3). */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "log/system-log.h"

/* In bytes: the longest text of log.c (4608), and room for the priority, date and name. */
#define MESSAGE_MAX 4800

static const char *name;
static int fd = -1;

void system_log_open(const char *program)
{
	name = program;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* The socket is not connected: it would not reach a log daemon that has been restarted since. */
static bool send_message(const char *message)
{
	static const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };

	return sendto(fd, message, strlen(message), MSG_NOSIGNAL, (const struct sockaddr *)&address,
		      sizeof(address)) >= 0;
}

static bool write_line(int level, const char *text)
{
	char message[MESSAGE_MAX], date[32];
	time_t now = time(NULL);
	struct tm local;

	strftime(date, sizeof(date), "%h %e %T", localtime_r(&now, &local));
	snprintf(message, sizeof(message), "<%d>%s %s[%d]: %s", LOG_DAEMON | level, date, name,
		 (int)getpid(), text);
	return send_message(message);
}

bool system_log_write(int level, const char *text)
{
	/* Other errors mean that there is no log, and nobody who misses the message. */
	return write_line(level, text) || (errno != EAGAIN && errno != ENOBUFS);
}
