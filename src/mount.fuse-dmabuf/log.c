/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fuse_log.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "system-log.h"

#define PROGRAM "mount.fuse-dmabuf"

/* A path may have 4095 bytes; longer messages are cut. */
#define MESSAGE_MAX 4608

static int max_level = LOG_INFO;
static bool use_syslog;

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
	system_log_open(PROGRAM);
	use_syslog = true;
}

/* File names are the users' choice: no line feed or escape sequence of theirs may forge a line. */
static void replace_control_characters(char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
	}
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
	replace_control_characters(text);
	if (use_syslog)
		system_log_write(level, text);
	else
		fprintf(stderr, PROGRAM ": %s\n", text);
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

void log_take_over_libfuse(void)
{
	fuse_set_log_func(write_libfuse_message);
}
