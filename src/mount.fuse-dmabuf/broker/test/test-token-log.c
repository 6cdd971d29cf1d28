/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The lines of the token log, and its quota. */
#include <string.h>
#include <time.h>

#include "broker/token-log.h"
#include "limits/log-quota.h"
#include "log/log.h"
#include "log/test/test-said.h"
#include "nodes/test/test-node.h"

int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

static time_t seconds = 1000;

/* Only this clock may be used: a clock that is set back would silence the log. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
	CHECK_EQUAL(clock, CLOCK_MONOTONIC);
	*now = (struct timespec){ .tv_sec = seconds };
	return 0;
}

static void refuse(const char *name)
{
	struct token_request request = {
		.id = 5, .inode = node_lookup(name), .owner = { .uid = 1000 }, .pid = 77,
		.size = 4096, .exporter = "udmabuf" };

	token_log_refused(&request, "why");
	inode_forget(request.inode, 1);
	node_remove(name);
}

/* The name stands in quotes, and quotes in the name are replaced. */
static void name_of_a_file_forges_no_other_field(void)
{
	const char *said;

	said_begin();
	refuse("x\" uid 0 pid 1");
	said = said_end();
	CHECK(strstr(said, "refused: \"/"));
	CHECK(strstr(said, "/x? uid 0 pid 1\" uid 1000 pid 77 size 4096 exporter udmabuf: why\n"));
}

/* Control characters of ASCII and of C1 (two bytes in UTF-8) are replaced. Letters stay. */
static void name_of_a_file_tells_a_terminal_nothing(void)
{
	said_begin();
	refuse("a\n\033[31m\177\302\233b\303\233");
	CHECK(strstr(said_end(), "/a??[31m???b\303\233\" uid 1000"));
}

static size_t count_lines(const char *said)
{
	size_t lines = 0;

	while ((said = strchr(said, '\n'))) {
		said++;
		lines++;
	}
	return lines;
}

/* Takes a uid, because refusals in an earlier test count against the quota of their uid. */
static void refuse_without_end(uid_t uid)
{
	struct token_request request = {
		.id = 5, .inode = node_lookup("x"), .owner = { .uid = uid }, .pid = 77,
		.size = 4096, .exporter = "udmabuf" };

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
	CHECK_EQUAL(count_lines(said_end()), 60);
	said_begin();
	refuse("x");
	CHECK_EQUAL(count_lines(said_end()), 1);
	seconds += 60;
	said_begin();
	refuse_without_end(1001);
	said = said_end();
	CHECK_EQUAL(count_lines(said), 61);
	CHECK(strstr(said, "940 more tokens of uid 1001"));
}

static struct token_request request_of(uid_t uid)
{
	struct token_request request = {
		.id = 5, .inode = node_lookup("file"), .owner = { .uid = uid },
		.exporter = "udmabuf" };

	request.is_logged = token_log_has_room(&request);
	return request;
}

static unsigned int count_logged_grants(uid_t uid, unsigned int tokens)
{
	unsigned int said = 0;

	for (unsigned int i = 0; i < tokens; i++) {
		struct token_request request = request_of(uid);

		said += request.is_logged;
		inode_forget(request.inode, 1);
	}
	return said;
}

/*
 * The log has a limit for one uid and for all. Grants that are left out are counted; the number
 * comes with the first line of the next minute.
 */
static void tokens_of_users_do_not_fill_the_log(void)
{
	unsigned int all = 0;

	seconds += 60;
	CHECK_EQUAL(count_logged_grants(1000, 10000), LOG_QUOTA_GRANTS_MAX);
	for (uid_t uid = 1001; uid < 1011; uid++)
		all += count_logged_grants(uid, 1000);
	CHECK_EQUAL(all, LOG_QUOTA_ALL_MAX - LOG_QUOTA_GRANTS_MAX);
	seconds += 60;
	said_begin();
	CHECK_EQUAL(count_logged_grants(1000, 1), 1);
	CHECK(strstr(said_end(), "9400 more tokens of uid 1000, or others, were granted, "
				 "which was not said each time\n"));
	node_remove("file");
}

static void end_of_a_token_is_said_if_its_grant_was(void)
{
	const struct broker_state state = { 0 };
	struct token_request request = request_of(2000);
	const char *said;

	CHECK(request.is_logged);
	said_begin();
	token_log_granted(&request, TOKEN_BOTH, &state);
	token_log_ended(&request, &(struct token_end){ .id = 5 });
	request.is_logged = false;
	token_log_granted(&request, TOKEN_BOTH, &state);
	token_log_revoked(&request, "why");
	token_log_withdrawn(&request);
	token_log_ended(&request, &(struct token_end){ .id = 5 });
	said = said_end();
	CHECK(strstr(said, "token 5 granted: ") && strstr(said, " 0 requests, "));
	CHECK_EQUAL(count_lines(said), 2);
	inode_forget(request.inode, 1);
	node_remove("file");
}

int main(void)
{
	nodes_begin();
	RUN(name_of_a_file_forges_no_other_field);
	RUN(name_of_a_file_tells_a_terminal_nothing);
	RUN(user_who_is_refused_without_end_does_not_fill_the_log);
	RUN(tokens_of_users_do_not_fill_the_log);
	RUN(end_of_a_token_is_said_if_its_grant_was);
	nodes_end();
	return 0;
}
