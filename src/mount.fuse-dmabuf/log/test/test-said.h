/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Catches the messages that a test makes the server write to stderr. */
#ifndef TEST_SAID_H
#define TEST_SAID_H

#include <stdio.h>
#include <unistd.h>

#include "check.h"

static FILE *said_stream;
static int said_stderr;

/* Catches what is written to stderr from here on. */
static inline void said_begin(void)
{
	said_stream = tmpfile();
	said_stderr = dup(STDERR_FILENO);
	CHECK(said_stream && dup2(fileno(said_stream), STDERR_FILENO) >= 0);
}

/* Restores stderr. Returns the text written since said_begin(); the next call overwrites it. */
static inline const char *said_end(void)
{
	static char said[32768];
	ssize_t length = pread(fileno(said_stream), said, sizeof(said) - 1, 0);

	CHECK(dup2(said_stderr, STDERR_FILENO) >= 0 && length >= 0);
	said[length] = '\0';
	close(said_stderr);
	fclose(said_stream);
	return said;
}

#endif
