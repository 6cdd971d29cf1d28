/* SPDX-License-Identifier: GPL-2.0-or-later */
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

/* The longest text of log.c, and what is put before it. */
#define MESSAGE_MAX 4800

static const char *name;
static int fd = -1;

void system_log_open(const char *program)
{
	name = program;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* Not connected: whoever is at the other end may have been started again. */
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
	snprintf(message, sizeof(message), "<%d>%s %s[%d]: %s", LOG_DAEMON | level, date, name, (int)getpid(), text);
	return send_message(message);
}

bool system_log_write(int level, const char *text)
{
	/* Without a log there is nobody to miss a message. */
	return write_line(level, text) || (errno != EAGAIN && errno != ENOBUFS);
}
