/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests of the shared lists of groups. */
#include <string.h>

#include "check.h"
#include "identity/groups.h"

static void equal_lists_are_one(void)
{
	static const gid_t some[] = { 7, 2000, 65533 }, same[] = { 7, 2000, 65533 };
	const gid_t *first = groups_get(some, 3), *second = groups_get(same, 3);

	CHECK(first && first == second && !memcmp(first, some, sizeof(some)));
	groups_put(first);
	CHECK(!memcmp(second, some, sizeof(some)));
	groups_put(second);
}

static void lists_differ_by_length_and_content(void)
{
	static const gid_t some[] = { 7, 2000 }, others[] = { 7, 2001 };
	const gid_t *lists[] = { groups_get(some, 2), groups_get(some, 1), groups_get(others, 2) };

	CHECK(lists[0] != lists[1] && lists[0] != lists[2] && lists[1] != lists[2]);
	CHECK(lists[0][1] == 2000 && lists[1][0] == 7 && lists[2][1] == 2001);
	for (int i = 0; i < 3; i++)
		groups_put(lists[i]);
}

/*
 * The lists are more than the buckets, and are removed in an order that takes them from the middle
 * of their chains.
 */
static void many_lists_are_kept_apart(void)
{
	const gid_t *lists[500];

	for (gid_t i = 0; i < 500; i++)
		lists[i] = groups_get(&i, 1);
	for (gid_t i = 0; i < 500; i += 2)
		groups_put(lists[i]);
	for (gid_t i = 1; i < 500; i += 2) {
		CHECK_EQUAL(lists[i][0], i);
		CHECK(groups_get(&i, 1) == lists[i]);
		groups_put(lists[i]);
		groups_put(lists[i]);
	}
}

static void no_groups_are_no_list(void)
{
	CHECK(!groups_get(NULL, 0));
	groups_put(NULL);
}

int main(void)
{
	RUN(equal_lists_are_one);
	RUN(lists_differ_by_length_and_content);
	RUN(many_lists_are_kept_apart);
	RUN(no_groups_are_no_list);
	return 0;
}
