/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Formats messages, drops those below the level, and chooses between stderr and syslog. */
#include <errno.h>
#include <fuse_log.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/text.h"
#include "log/log.h"
#include "log/stderr-log.h"
#include "log/system-log.h"

/* In bytes: a path of 4095 bytes, and text around it. Longer messages are cut. */
#define MESSAGE_MAX 4608

static int max_level = LOG_INFO;
static bool use_syslog;
static atomic_uint lost_count;     /* messages, since the last report */

void log_set_level(int level)
{
	max_level = level;
}

int log_level_from_name(const char *name)
{
	static const struct {
		const char *name;
		int level;
	} levels[] = {
		{ "error", LOG_ERR },
		{ "warning", LOG_WARNING },
		{ "info", LOG_INFO },
		{ "debug", LOG_DEBUG },
	};

	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		if (!strcmp(name, levels[i].name))
			return levels[i].level;
	}
	return -1;
}

void log_to_syslog(void)
{
	system_log_open(LOG_PROGRAM);
	use_syslog = true;
}

/* Returns false if there was no room for the line. */
static bool write_line(int level, const char *text)
{
	return use_syslog ? system_log_write(level, text) : stderr_log_write(level, text);
}

static void report_lost(void)
{
	unsigned int count = atomic_exchange(&lost_count, 0);
	char text[64];

	if (!count)
		return;
	snprintf(text, sizeof(text), "%u messages were lost: the log was busy", count);
	if (!write_line(LOG_WARNING, text))
		lost_count += count;
}

static void write_message(int level, const char *format, va_list args)
{
	char text[MESSAGE_MAX];
	int saved = errno;
	size_t length;

	if (level > max_level)
		return;
	vsnprintf(text, sizeof(text), format, args);
	length = strlen(text);
	if (length && text[length - 1] == '\n')
		text[length - 1] = '\0';
	/* Users choose file names: a line feed or escape sequence in one must not forge a line. */
	replace_control_characters(text);
	report_lost();
	if (!write_line(level, text))
		lost_count++;
	errno = saved;
}

void log_message(int level, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	write_message(level, format, args);
	va_end(args);
}

static void write_libfuse_message(enum fuse_log_level level, const char *format, va_list args)
{
	/* libfuse's levels have syslog's numbers. */
	write_message((int)level, format, args);
}

void log_begin(void)
{
	stderr_log_begin();
	fuse_set_log_func(write_libfuse_message);
}

bool log_is_due(atomic_llong *next)
{
	long long due = *next;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec >= due && atomic_compare_exchange_strong(next, &due, now.tv_sec + 60);
}
