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

int main(void)
{
	nodes_begin();
	RUN(what_may_happen_at_each_request_is_said_once_a_minute);
	RUN(name_of_a_file_forges_no_other_field);
	RUN(name_of_a_file_tells_a_terminal_nothing);
	nodes_end();
	return 0;
}
