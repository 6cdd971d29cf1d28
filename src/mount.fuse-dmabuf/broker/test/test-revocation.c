/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which tokens are revoked, and when, with a simulated kernel. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

#include "broker/broker.h"
#include "broker/revoke-on-unlink.h"
#include "broker/test/simulated-kernel.h"
#include "broker/test/test-policy.h"
#include "log/log.h"
#include "nodes/test/test-node.h"

static struct inode *file, *other;

/* Grants a token whose answer the kernel has not taken yet. */
static void grant_unanswered(struct inode *inode, uint64_t id, uid_t uid, uint64_t size)
{
	uint32_t direction;

	CHECK_EQUAL(broker_grant(&(struct token_request){
		.id = id, .inode = inode, .open_flags = O_RDWR, .size = size,
		.direction = TOKEN_BOTH, .owner = { .uid = uid, .gid = uid }, .pid = 1,
		.exporter = "test" }, &direction), 0);
}

static void grant_for(struct inode *inode, uint64_t id, uid_t uid, uint64_t size)
{
	grant_unanswered(inode, id, uid, size);
	broker_answered(id);
}

static bool is_revoked(uint64_t id)
{
	CHECK(books_find(id));
	return books_find(id)->revoked;
}

static void begin(void)
{
	kernel = (struct simulated_kernel){ 0 };
	broker_begin(test_policy(false, UINT64_MAX));
}

static const char *reason_for_every_token(const struct token *token, void *data)
{
	(void)token;
	(void)data;
	return "test";
}

static struct revocation revoke_all(void)
{
	return revoke_tokens(&(struct revocation_selector){ .reason = reason_for_every_token });
}

static void revoked_token_counts_no_more_but_stays_until_it_is_released(void)
{
	begin();
	grant_for(file, 1, 1000, 10);
	grant_for(file, 2, 1000, 20);
	CHECK_EQUAL(revoke_all().revoked, 2);
	CHECK_EQUAL(broker_state(1000).all.tokens, 0);
	CHECK_EQUAL(broker_state(1000).user.bytes, 0);
	CHECK_EQUAL(books_entries(), 2);
	CHECK_EQUAL(revoke_all().revoked, 0);
	CHECK_EQUAL(kernel.calls, 2);
	CHECK(broker_release(&(struct token_end){
		.id = 1, .reason = FUSE_DMABUF_RELEASE_REVOKED }));
	CHECK_EQUAL(books_entries(), 1);
	CHECK_EQUAL(broker_state(1000).all.bytes, 0);
	broker_end();
}

static void release_during_revocation(uint64_t id)
{
	CHECK(broker_release(&(struct token_end){ .id = id }));
}

static void token_may_end_while_it_is_revoked(void)
{
	begin();
	grant_for(file, 1, 1000, 10);
	kernel.on_revoke = release_during_revocation;
	revoke_all();
	CHECK_EQUAL(books_entries(), 0);
	CHECK_EQUAL(broker_state(0).all.bytes, 0);
	broker_end();
}

static void what_the_kernel_refuses_stays_counted(void)
{
	struct revocation result;

	begin();
	grant_for(file, 1, 1000, 10);
	kernel.error = ENOTTY;
	result = revoke_all();
	CHECK_EQUAL(result.failed, 1);
	CHECK_EQUAL(result.error, ENOTTY);
	CHECK(!is_revoked(1));
	CHECK_EQUAL(broker_state(0).all.bytes, 10);
	broker_end();
}

static atomic_uint begun;
static atomic_bool finish;

static void wait_in_kernel(uint64_t id)
{
	(void)id;
	begun++;
	while (!finish)
		usleep(1000);
}

static void *revoke_in_thread(void *result)
{
	*(struct revocation *)result = revoke_all();
	return NULL;
}

#define NOT_YET 99      /* revoke_in_thread() has not returned: the initial value of its result */

static void token_that_is_not_live_yet_is_revoked_as_soon_as_it_is(void)
{
	struct revocation result = { .revoked = NOT_YET };
	pthread_t thread;

	begin();
	grant_unanswered(file, 1, 1000, 10);
	CHECK(!pthread_create(&thread, NULL, revoke_in_thread, &result));
	usleep(50000);
	CHECK_EQUAL(kernel.calls, 0);
	CHECK_EQUAL(result.revoked, NOT_YET);
	broker_answered(1);
	pthread_join(thread, NULL);
	CHECK_EQUAL(result.revoked, 1);
	CHECK(is_revoked(1));
	broker_end();
}

static void nobody_waits_for_a_token_that_is_withdrawn(void)
{
	struct revocation result = { .revoked = NOT_YET };
	pthread_t thread;

	begin();
	grant_unanswered(file, 1, 1000, 10);
	CHECK(!pthread_create(&thread, NULL, revoke_in_thread, &result));
	usleep(50000);
	broker_withdraw(1);
	pthread_join(thread, NULL);
	CHECK_EQUAL(result.revoked, 0);
	CHECK_EQUAL(kernel.calls, 0);
	broker_end();
}

static void second_revoker_waits_until_dma_has_ended(void)
{
	struct revocation first, second = { .revoked = NOT_YET };
	pthread_t threads[2];

	begin();
	grant_for(file, 1, 1000, 10);
	kernel.on_revoke = wait_in_kernel;
	CHECK(!pthread_create(&threads[0], NULL, revoke_in_thread, &first));
	while (!begun)
		usleep(1000);
	CHECK(!pthread_create(&threads[1], NULL, revoke_in_thread, &second));
	usleep(50000);
	CHECK_EQUAL(second.revoked, NOT_YET);
	finish = true;
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	CHECK_EQUAL(first.revoked, 1);
	CHECK_EQUAL(second.revoked, 0);
	CHECK_EQUAL(kernel.calls, 1);
	broker_end();
}

static void chmod_ends_the_tokens_of_those_who_lost_their_right(void)
{
	begin();
	node_chmod(file, 0666);
	grant_for(file, 1, 1000, 10);
	grant_for(file, 2, 0, 10);
	grant_for(other, 3, 1000, 10);
	broker_recheck_file(file);
	CHECK_EQUAL(kernel.calls, 0);
	node_chmod(other, 0600);        /* in the source, which the broker is not told */
	node_chmod(file, 0644);         /* takes writing from uid 1000, whose token has both */
	broker_recheck_file(file);
	CHECK(is_revoked(1) && !is_revoked(2) && !is_revoked(3));
	node_chmod(file, 0666);
	node_chmod(other, 0666);
	broker_end();
}

static void removed_file_loses_all_tokens(void)
{
	begin();
	grant_for(file, 1, 0, 10);
	grant_for(other, 2, 0, 10);
	grant_for(file, 3, 0, 10);
	broker_revoke_file(file);
	CHECK(is_revoked(1) && !is_revoked(2) && is_revoked(3));
	CHECK_EQUAL(kernel.bulk_calls, 1);
	CHECK_EQUAL(kernel.last, file->nodeid);
	CHECK_EQUAL(kernel.calls, 0);
	broker_end();
}

/* There are no tokens when the removal begins, so the file is not looked up. */
static void token_granted_during_a_removal_is_found(void)
{
	struct inode *removed = node_lookup("removed");
	struct unlinked_file removal;

	begin();
	revoke_on_unlink_enable();
	removal = revoke_on_unlink_begin(node_root(), "removed");
	grant_for(removed, 1, 0, 10);
	grant_for(other, 2, 0, 10);
	node_remove("removed");
	revoke_on_unlink_end(&removal);
	CHECK(is_revoked(1) && !is_revoked(2));
	broker_end();
	inode_forget(removed, 1);
}

static void token_granted_during_a_removal_is_found_beside_others(void)
{
	struct inode *removed = node_lookup("removed");
	struct unlinked_file removal;

	begin();
	revoke_on_unlink_enable();
	grant_for(other, 1, 0, 10);
	removal = revoke_on_unlink_begin(node_root(), "removed");
	grant_for(removed, 2, 0, 10);
	node_remove("removed");
	revoke_on_unlink_end(&removal);
	CHECK(!is_revoked(1) && is_revoked(2));
	broker_end();
	inode_forget(removed, 1);
}

static void allow_descriptors(rlim_t count)
{
	struct rlimit limit;

	CHECK(!getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = count;
	CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
}

static void removal_without_descriptors_ends_the_tokens_too(void)
{
	struct inode *removed = node_lookup("removed");
	struct unlinked_file removal;

	begin();
	revoke_on_unlink_enable();
	grant_for(removed, 1, 0, 10);
	grant_for(other, 2, 0, 10);
	allow_descriptors(0);
	removal = revoke_on_unlink_begin(node_root(), "removed");
	node_remove("removed");
	revoke_on_unlink_end(&removal);
	allow_descriptors(1024);
	CHECK(is_revoked(1) && !is_revoked(2));
	broker_end();
	inode_forget(removed, 1);
}

static void removed_name_of_a_file_with_tokens_ends_them_with_the_last(void)
{
	struct inode *removed = node_lookup("removed");
	struct unlinked_file removal;

	begin();
	revoke_on_unlink_enable();
	CHECK(!linkat(node_root()->fd, "removed", node_root()->fd, "again", 0));
	grant_for(removed, 1, 0, 10);
	removal = revoke_on_unlink_begin(node_root(), "removed");
	node_remove("removed");
	revoke_on_unlink_end(&removal);
	CHECK(!is_revoked(1));
	removal = revoke_on_unlink_begin(node_root(), "again");
	node_remove("again");
	revoke_on_unlink_end(&removal);
	CHECK(is_revoked(1));
	broker_end();
	inode_forget(removed, 1);
}

/* ---------------------------------------------------------------- many tokens in one call */

static struct revocation revoke_all_in_one_call(void)
{
	return revoke_tokens(&(struct revocation_selector){
		.reason = reason_for_every_token, .all = true });
}

static void kernel_is_asked_once_for_all(void)
{
	begin();
	CHECK_EQUAL(revoke_all_in_one_call().revoked, 0);
	CHECK_EQUAL(kernel.bulk_calls, 0);
	for (uint64_t id = 1; id <= 100; id++)
		grant_for(file, id, 1000, 10);
	CHECK_EQUAL(revoke_all_in_one_call().revoked, 100);
	CHECK_EQUAL(kernel.bulk_calls, 1);
	CHECK_EQUAL(kernel.calls, 0);
	CHECK_EQUAL(broker_state(0).all.tokens, 0);
	broker_end();
}

static void grant_second_token(void)
{
	grant_for(file, 2, 1000, 10);
}

static void token_that_the_kernel_may_have_ended_too_is_not_forgotten(void)
{
	begin();
	grant_for(file, 1, 1000, 10);
	kernel.on_bulk_revoke = grant_second_token;
	CHECK_EQUAL(revoke_all_in_one_call().revoked, 2);
	CHECK_EQUAL(kernel.calls, 1);
	CHECK_EQUAL(kernel.last, 2);
	CHECK(is_revoked(1) && is_revoked(2));
	broker_end();
}

static void what_the_kernel_refuses_in_one_call_stays_counted(void)
{
	struct revocation result;

	begin();
	grant_for(file, 1, 1000, 10);
	grant_for(file, 2, 1000, 10);
	kernel.error = EINTR;
	result = revoke_all_in_one_call();
	CHECK_EQUAL(result.failed, 2);
	CHECK_EQUAL(result.error, EINTR);
	CHECK_EQUAL(broker_state(0).all.bytes, 20);
	kernel.error = 0;
	CHECK_EQUAL(revoke_all_in_one_call().revoked, 2);
	broker_end();
}

static void *revoke_all_in_one_call_in_thread(void *result)
{
	*(struct revocation *)result = revoke_all_in_one_call();
	return NULL;
}

/* One thread waits for the DMA of one token: a thread that revokes all must not return before. */
static void revoking_all_in_one_call_waits_for_other_revokers(void)
{
	struct revocation first, second = { .revoked = NOT_YET };
	pthread_t threads[2];

	begin();
	begun = 0;
	finish = false;
	grant_for(file, 1, 1000, 10);
	kernel.on_revoke = wait_in_kernel;
	CHECK(!pthread_create(&threads[0], NULL, revoke_in_thread, &first));
	while (!begun)
		usleep(1000);
	grant_for(file, 2, 1000, 10);
	CHECK(!pthread_create(&threads[1], NULL, revoke_all_in_one_call_in_thread, &second));
	usleep(50000);
	CHECK_EQUAL(second.revoked, NOT_YET);
	CHECK(is_revoked(2));
	finish = true;
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	CHECK_EQUAL(first.revoked + second.revoked, 2);
	broker_end();
}

/* --------------------------------------------------------------- rights that end during a grant */

const char *__real_policy_limit(const struct policy *policy, const struct owner *owner,
				uint64_t size, const struct token_count *all,
				const struct token_count *user);

static void (*between_check_and_grant)(void);

/*
 * The linker calls this function in place of policy_limit(): the rights to the file have been
 * checked, and allow the grant.
 */
const char *__wrap_policy_limit(const struct policy *policy, const struct owner *owner,
				uint64_t size, const struct token_count *all,
				const struct token_count *user)
{
	void (*hook)(void) = between_check_and_grant;

	between_check_and_grant = NULL;
	if (hook)
		hook();
	return __real_policy_limit(policy, owner, size, all, user);
}

static pthread_t changer;

static void *take_rights(void *unused)
{
	(void)unused;
	node_chmod(file, 0600);
	begun = 1;
	broker_recheck_file(file);
	return NULL;
}

static void *remove_file(void *unused)
{
	(void)unused;
	begun = 1;
	broker_revoke_file(file);
	return NULL;
}

static void start(void *(*function)(void *))
{
	begun = 0;
	CHECK(!pthread_create(&changer, NULL, function, NULL));
	while (!begun)
		usleep(1000);
	usleep(50000);
}

static void start_to_take_rights(void)
{
	start(take_rights);
}

static void start_to_remove(void)
{
	start(remove_file);
}

static void rights_that_end_while_a_grant_is_decided_end_the_token(void)
{
	begin();
	between_check_and_grant = start_to_take_rights;
	grant_for(file, 1, 1000, 10);
	pthread_join(changer, NULL);
	CHECK(is_revoked(1));
	node_chmod(file, 0666);
	broker_end();
}

static void removal_while_a_grant_is_decided_ends_the_token(void)
{
	begin();
	between_check_and_grant = start_to_remove;
	grant_for(file, 1, 1000, 10);
	pthread_join(changer, NULL);
	CHECK(is_revoked(1));
	broker_end();
}

/* ---------------------------------------------------------------- the policy */

static void lowered_limit_takes_the_newest(void)
{
	struct policy *policy = test_policy(false, 25);

	begin();
	for (uint64_t id = 1; id <= 4; id++)
		grant_for(file, id, 1000, 10);
	CHECK_EQUAL(broker_set_policy(policy).revoked, 2);
	CHECK(!is_revoked(1) && !is_revoked(2) && is_revoked(3) && is_revoked(4));
	CHECK_EQUAL(broker_state(0).all.bytes, 20);
	broker_end();
}

static void lowered_limit_of_users_takes_from_each(void)
{
	struct policy *policy = test_policy(false, UINT64_MAX);

	begin();
	for (uint64_t id = 1; id <= 6; id++)
		grant_for(file, id, id % 2 ? 1000 : 1064, 10);
	policy->user.tokens = 2;
	CHECK_EQUAL(broker_set_policy(policy).revoked, 2);
	CHECK(is_revoked(5) && is_revoked(6));
	broker_end();
}

enum { MANY = 2000 };

static atomic_uint checks;

static void slow_check(void)
{
	checks++;
	usleep(10);
	between_check_and_grant = slow_check;
}

static void *reload(void *unused)
{
	(void)unused;
	broker_set_policy(test_policy(false, UINT64_MAX));
	return NULL;
}

static void grant_does_not_wait_for_the_end_of_a_reload(void)
{
	pthread_t thread;

	begin();
	for (uint64_t id = 1; id <= MANY; id++)
		grant_for(file, id, 1000, 10);
	checks = 0;
	between_check_and_grant = slow_check;
	CHECK(!pthread_create(&thread, NULL, reload, NULL));
	while (!checks)
		usleep(1000);
	broker_state(0);
	CHECK(checks < MANY);
	pthread_join(thread, NULL);
	CHECK_EQUAL(checks, MANY);
	between_check_and_grant = NULL;
	broker_end();
}

static void policy_that_denies_takes_all(void)
{
	begin();
	grant_for(file, 1, 0, 10);
	grant_for(other, 2, 1000, 10);
	CHECK_EQUAL(broker_set_policy(test_policy(true, UINT64_MAX)).revoked, 2);
	CHECK_EQUAL(broker_state(0).all.tokens, 0);
	broker_end();
}

static atomic_bool granting;

static void *grant_and_release_many(void *argument)
{
	(void)argument;
	for (uint64_t id = 1; id <= 3000; id++) {
		grant_for(file, id, id % 5, 10);
		if (id > 7)
			broker_release(&(struct token_end){ .id = id - 7 });
	}
	granting = false;
	return NULL;
}

static void counts_stay_exact_in_a_storm(void)
{
	pthread_t thread;

	begin();
	granting = true;
	CHECK(!pthread_create(&thread, NULL, grant_and_release_many, NULL));
	while (granting) {
		revoke_all();
		revoke_all_in_one_call();
	}
	pthread_join(thread, NULL);
	revoke_all();
	CHECK_EQUAL(books_entries(), 7);
	CHECK_EQUAL(broker_state(0).all.tokens, 0);
	CHECK_EQUAL(broker_state(0).all.bytes, 0);
	broker_end();
	CHECK_EQUAL(file->lookups, 1);
	CHECK(!books_has_tokens_of(file));
}

int main(void)
{
	log_set_level(LOG_EMERG);
	nodes_begin();
	file = node_lookup("file");
	other = node_lookup("other");
	CHECK(inode_use(file) && inode_use(other));
	RUN(revoked_token_counts_no_more_but_stays_until_it_is_released);
	RUN(token_that_is_not_live_yet_is_revoked_as_soon_as_it_is);
	RUN(nobody_waits_for_a_token_that_is_withdrawn);
	RUN(token_may_end_while_it_is_revoked);
	RUN(what_the_kernel_refuses_stays_counted);
	RUN(second_revoker_waits_until_dma_has_ended);
	RUN(chmod_ends_the_tokens_of_those_who_lost_their_right);
	RUN(removed_file_loses_all_tokens);
	RUN(token_granted_during_a_removal_is_found);
	RUN(token_granted_during_a_removal_is_found_beside_others);
	RUN(removal_without_descriptors_ends_the_tokens_too);
	RUN(removed_name_of_a_file_with_tokens_ends_them_with_the_last);
	RUN(kernel_is_asked_once_for_all);
	RUN(token_that_the_kernel_may_have_ended_too_is_not_forgotten);
	RUN(what_the_kernel_refuses_in_one_call_stays_counted);
	RUN(revoking_all_in_one_call_waits_for_other_revokers);
	RUN(rights_that_end_while_a_grant_is_decided_end_the_token);
	RUN(removal_while_a_grant_is_decided_ends_the_token);
	RUN(lowered_limit_takes_the_newest);
	RUN(lowered_limit_of_users_takes_from_each);
	RUN(grant_does_not_wait_for_the_end_of_a_reload);
	RUN(policy_that_denies_takes_all);
	RUN(counts_stay_exact_in_a_storm);
	inode_end_use(file);
	inode_end_use(other);
	inode_forget(file, 1);
	inode_forget(other, 1);
	node_remove("file");
	node_remove("other");
	nodes_end();
	return 0;
}
