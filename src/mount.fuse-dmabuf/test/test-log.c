/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>
#include <time.h>

#include "log.h"
#include "test-node.h"
#include "test-said.h"
#include "token-log.h"

int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

static time_t seconds = 1000;

/* No other clock: one that is set back would silence the log. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
	CHECK_EQUAL(clock, CLOCK_MONOTONIC);
	*now = (struct timespec){ .tv_sec = seconds };
	return 0;
}

static void what_may_happen_at_each_request_is_said_once_a_minute(void)
{
	atomic_llong next = 0;

	CHECK(log_is_due(&next) && !log_is_due(&next));
	seconds += 59;
	CHECK(!log_is_due(&next));
	seconds++;
	CHECK(log_is_due(&next) && !log_is_due(&next));
}

static void refuse(const char *name)
{
	struct token_request request = {
		.id = 5, .inode = node_lookup(name), .owner = { .uid = 1000 }, .pid = 77, .size = 4096,
		.exporter = "udmabuf" };

	token_log_refused(&request, "why");
	inode_forget(request.inode, 1);
	node_remove(name);
}

/* In quotes, which it has none of itself. */
static void name_of_a_file_forges_no_other_field(void)
{
	const char *said;

	said_begin();
	refuse("x\" uid 0 pid 1");
	said = said_end();
	CHECK(strstr(said, "refused: \"/"));
	CHECK(strstr(said, "/x? uid 0 pid 1\" uid 1000 pid 77 size 4096 exporter udmabuf: why\n"));
}

/* Neither by control characters of ASCII nor by those of C1, which have two bytes in UTF-8. Letters stay. */
static void name_of_a_file_tells_a_terminal_nothing(void)
{
	said_begin();
	refuse("a\n\033[31m\177\302\233b\303\233");
	CHECK(strstr(said_end(), "/a??[31m???b\303\233\" uid 1000"));
}

static size_t lines_of(const char *said)
{
	size_t lines = 0;

	while ((said = strchr(said, '\n'))) {
		said++;
		lines++;
	}
	return lines;
}

/* The uid is another's, so that what was refused before does not count. */
static void refuse_without_end(uid_t uid)
{
	struct token_request request = {
		.id = 5, .inode = node_lookup("x"), .owner = { .uid = uid }, .pid = 77, .size = 4096, .exporter = "udmabuf" };

	for (int i = 0; i < 1000; i++)
		token_log_refused(&request, "why");
	inode_forget(request.inode, 1);
	node_remove("x");
}

static void user_who_is_refused_without_end_does_not_fill_the_log(void)
{
	const char *said;

	said_begin();
	refuse_without_end(1001);
	CHECK_EQUAL(lines_of(said_end()), 60);
	said_begin();
	refuse("x");
	CHECK_EQUAL(lines_of(said_end()), 1);
	seconds += 60;
	said_begin();
	refuse_without_end(1001);
	said = said_end();
	CHECK_EQUAL(lines_of(said), 61);
	CHECK(strstr(said, "940 more tokens of uid 1001"));
}

int main(void)
{
	nodes_begin();
	RUN(what_may_happen_at_each_request_is_said_once_a_minute);
	RUN(name_of_a_file_forges_no_other_field);
	RUN(name_of_a_file_tells_a_terminal_nothing);
	RUN(user_who_is_refused_without_end_does_not_fill_the_log);
	nodes_end();
	return 0;
}
