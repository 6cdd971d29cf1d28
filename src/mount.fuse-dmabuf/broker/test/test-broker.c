/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Decisions of the broker, and the counts in its books. */
#include <errno.h>

#include "broker/broker.h"
#include "broker/test/simulated-kernel.h"
#include "broker/test/test-policy.h"
#include "log/log.h"
#include "nodes/test/test-node.h"

static struct inode *file;

static void set_policy(bool deny, uint64_t max_bytes)
{
	broker_set_policy(test_policy(deny, max_bytes));
}

static int grant(uint64_t id, uid_t uid, uint64_t size)
{
	uint32_t direction;

	return broker_grant(&(struct token_request){
		.id = id, .inode = file, .open_flags = O_RDONLY, .size = size,
		.direction = FUSE_DMABUF_TOKEN_READ, .owner = { .uid = uid, .gid = uid }, .pid = 1,
		.exporter = "test" }, &direction);
}

static const char *test_reason(const struct token *token, void *id)
{
	return token->request.id == *(uint64_t *)id ? "test" : NULL;
}

static void revoke_token(uint64_t id)
{
	broker_answered(id);
	CHECK_EQUAL(revoke_tokens(&(struct revocation_selector){
		.reason = test_reason, .data = &id }).revoked, 1);
}

static bool release(uint64_t id)
{
	return broker_release(&(struct token_end){ .id = id });
}

static struct token_count count_of_all(void)
{
	return broker_state(0).all;
}

static struct token_count count_of_user(uid_t uid)
{
	return broker_state(uid).user;
}

/* Ends the connection, and begins the next one. */
static void end_all(void)
{
	broker_end();
	broker_begin(test_policy(false, UINT64_MAX));
}

static void check_count(struct token_count count, uint64_t tokens, uint64_t bytes)
{
	CHECK_EQUAL(count.tokens, tokens);
	CHECK_EQUAL(count.bytes, bytes);
}

static uint32_t granted_direction(int open_flags, uint32_t asked)
{
	uint32_t direction = 0;
	int error = broker_grant(&(struct token_request){
		.id = 1, .inode = file, .open_flags = open_flags, .size = 1, .direction = asked,
		.exporter = "test" }, &direction);

	CHECK_EQUAL(error, direction ? 0 : EACCES);
	if (!error)
		CHECK(release(1));
	return direction;
}

static void direction_is_that_of_the_open(void)
{
	set_policy(false, UINT64_MAX);
	CHECK_EQUAL(granted_direction(O_RDONLY | O_DIRECT, TOKEN_BOTH), FUSE_DMABUF_TOKEN_READ);
	CHECK_EQUAL(granted_direction(O_WRONLY | O_DIRECT, TOKEN_BOTH), FUSE_DMABUF_TOKEN_WRITE);
	CHECK_EQUAL(granted_direction(O_RDWR | O_DIRECT, TOKEN_BOTH), TOKEN_BOTH);
	CHECK_EQUAL(granted_direction(O_RDWR, FUSE_DMABUF_TOKEN_READ), FUSE_DMABUF_TOKEN_READ);
	CHECK_EQUAL(granted_direction(O_RDONLY, FUSE_DMABUF_TOKEN_WRITE), 0);
	CHECK_EQUAL(granted_direction(O_WRONLY, FUSE_DMABUF_TOKEN_READ), 0);
}

static void denying_policy_grants_nothing(void)
{
	set_policy(true, UINT64_MAX);
	CHECK_EQUAL(grant(1, 1000, 1), EPERM);
	check_count(count_of_all(), 0, 0);
}

static void limit_of_bytes_is_exact(void)
{
	set_policy(false, 100);
	CHECK_EQUAL(grant(1, 1000, 101), EDQUOT);
	CHECK_EQUAL(grant(1, 1000, 60), 0);
	CHECK_EQUAL(grant(2, 1001, 41), EDQUOT);
	CHECK_EQUAL(grant(2, 1001, 40), 0);
	CHECK_EQUAL(grant(3, 1001, UINT64_MAX), EDQUOT);
	CHECK(release(1));
	CHECK_EQUAL(grant(3, 1001, 60), 0);
	CHECK(release(2) && release(3));
	check_count(count_of_all(), 0, 0);
}

static void tokens_are_counted_for_each_user(void)
{
	set_policy(false, UINT64_MAX);
	CHECK_EQUAL(grant(1, 1000, 10), 0);
	CHECK_EQUAL(grant(2, 1064, 20), 0);
	CHECK_EQUAL(grant(3, 1000, 30), 0);
	check_count(count_of_all(), 3, 60);
	check_count(count_of_user(1000), 2, 40);
	check_count(count_of_user(1064), 1, 20);
	check_count(count_of_user(1), 0, 0);
	CHECK(release(1));
	check_count(count_of_user(1000), 1, 30);
	CHECK(release(2) && release(3));
	check_count(count_of_user(1000), 0, 0);
	check_count(count_of_all(), 0, 0);
}

/* A user whose tokens are revoked again and again must not fill the books with new ones. */
static void held_tokens_that_were_revoked_are_limited(void)
{
	struct policy *limited = test_policy(false, UINT64_MAX);
	uint64_t id;

	limited->user.tokens = 3;
	broker_set_policy(limited);
	for (id = 1; id <= 6; id++) {
		CHECK_EQUAL(grant(id, 1000, 10), 0);
		revoke_token(id);
	}
	check_count(count_of_user(1000), 0, 0);
	CHECK_EQUAL(grant(7, 1000, 10), EDQUOT);
	CHECK_EQUAL(grant(7, 1001, 10), 0);
	limited = test_policy(false, UINT64_MAX);
	limited->all.tokens = 3;
	broker_set_policy(limited);
	CHECK_EQUAL(grant(8, 1002, 10), EDQUOT);
	CHECK(release(1) && release(2));
	CHECK_EQUAL(grant(8, 1002, 10), 0);
	end_all();
}

static void walk_goes_over_what_was_there_and_has_not_ended(void)
{
	struct books_walk walk;

	set_policy(false, UINT64_MAX);
	for (uint64_t id = 1; id <= 4; id++)
		CHECK_EQUAL(grant(id, 1000, 10), 0);
	books_lock();
	books_walk_begin(&walk);
	CHECK_EQUAL(books_walk_next(&walk)->request.id, 1);
	books_unlock();
	CHECK(release(2) && release(3));
	CHECK_EQUAL(grant(5, 1000, 10), 0);
	books_lock();
	CHECK_EQUAL(books_walk_next(&walk)->request.id, 4);
	CHECK(!books_walk_next(&walk));
	books_walk_end(&walk);
	books_unlock();
	end_all();
}

static void id_in_use_is_refused_and_changes_nothing(void)
{
	set_policy(false, UINT64_MAX);
	CHECK_EQUAL(grant(7, 1000, 10), 0);
	CHECK_EQUAL(grant(7, 1001, 20), EEXIST);
	check_count(count_of_all(), 1, 10);
	CHECK(release(7));
}

static void unknown_token_is_not_released(void)
{
	CHECK(!release(1234));
	CHECK_EQUAL(grant(1, 1000, 10), 0);
	CHECK(release(1));
	CHECK(!release(1));
	broker_withdraw(1);
	check_count(count_of_all(), 0, 0);
}

static void withdrawn_token_is_not_counted(void)
{
	CHECK_EQUAL(grant(1, 1000, 10), 0);
	broker_withdraw(1);
	check_count(count_of_all(), 0, 0);
	check_count(count_of_user(1000), 0, 0);
}

static void token_keeps_its_node(void)
{
	CHECK_EQUAL(grant(1, 1000, 10), 0);
	CHECK_EQUAL(file->lookups, 2);
	CHECK(release(1));
	CHECK_EQUAL(file->lookups, 1);
}

static void end_of_the_connection_ends_all_tokens(void)
{
	for (uint64_t id = 0; id < 10000; id++)
		CHECK_EQUAL(grant(id, 1000 + id % 200, 1 << 20), 0);
	check_count(count_of_all(), 10000, 10000ull << 20);
	check_count(count_of_user(1000), 50, 50ull << 20);
	end_all();
	check_count(count_of_all(), 0, 0);
	check_count(count_of_user(1000), 0, 0);
	CHECK_EQUAL(file->lookups, 1);
}

static void *grant_and_release(void *argument)
{
	uint64_t first = (uint64_t)(uintptr_t)argument << 32;

	for (uint64_t id = first; id < first + 20000; id++) {
		CHECK_EQUAL(grant(id, id % 3, 10), 0);
		if (id >= first + 5)
			CHECK(release(id - 5));
	}
	return NULL;
}

static void counts_stay_exact_with_many_threads(void)
{
	pthread_t threads[4];

	for (uintptr_t i = 0; i < 4; i++)
		CHECK(!pthread_create(&threads[i], NULL, grant_and_release, (void *)i));
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	check_count(count_of_all(), 20, 200);
	end_all();
}

int main(void)
{
	log_set_level(LOG_ERR);
	nodes_begin();
	file = node_lookup("file");
	RUN(direction_is_that_of_the_open);
	RUN(denying_policy_grants_nothing);
	RUN(limit_of_bytes_is_exact);
	RUN(tokens_are_counted_for_each_user);
	RUN(held_tokens_that_were_revoked_are_limited);
	RUN(walk_goes_over_what_was_there_and_has_not_ended);
	RUN(id_in_use_is_refused_and_changes_nothing);
	RUN(unknown_token_is_not_released);
	RUN(withdrawn_token_is_not_counted);
	RUN(token_keeps_its_node);
	RUN(end_of_the_connection_ends_all_tokens);
	RUN(counts_stay_exact_with_many_threads);
	inode_forget(file, 1);
	node_remove("file");
	nodes_end();
	return 0;
}
