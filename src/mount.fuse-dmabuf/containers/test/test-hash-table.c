/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests the hash table, also with equal hashes and after it has grown. */
#include <stdbool.h>

#include "check.h"
#include "containers/hash-table.h"

enum { COUNT = 1000 };

struct item {
	uint64_t key;
	struct hash_link link;
	bool is_seen;
};

static struct hash_table table;
static struct item items[COUNT];

static void add_all(uint64_t hash_modulo)
{
	for (uint64_t i = 0; i < COUNT; i++) {
		items[i].key = i;
		items[i].is_seen = false;
		hash_table_add(&table, &items[i].link, i % hash_modulo);
	}
}

static struct item *find(uint64_t key, uint64_t hash)
{
	struct hash_link *link = hash_table_find(&table, hash);

	while (link && hash_entry(link, struct item, link)->key != key)
		link = hash_table_find_next(link);
	return link ? hash_entry(link, struct item, link) : NULL;
}

static void check_walk(size_t expected)
{
	size_t seen = 0;

	for (struct hash_link *link = hash_table_walk(&table, NULL); link;
	     link = hash_table_walk(&table, link)) {
		CHECK(!hash_entry(link, struct item, link)->is_seen);
		hash_entry(link, struct item, link)->is_seen = true;
		seen++;
	}
	CHECK_EQUAL(seen, expected);
}

static void empty_table_has_nothing(void)
{
	CHECK(!hash_table_find(&table, 0));
	CHECK(!hash_table_walk(&table, NULL));
	hash_table_clear(&table);
}

static void everything_added_is_found_when_the_table_has_grown(void)
{
	add_all(COUNT);
	CHECK(table.buckets && table.bucket_count >= COUNT);
	for (uint64_t i = 0; i < COUNT; i++)
		CHECK(find(i, i) == &items[i]);
	CHECK(!hash_table_find(&table, COUNT));
	check_walk(COUNT);
	hash_table_clear(&table);
	CHECK(!hash_table_find(&table, 0));
}

static void entries_with_equal_hashes_are_told_apart(void)
{
	add_all(7);
	for (uint64_t i = 0; i < COUNT; i++)
		CHECK(find(i, i % 7) == &items[i]);
	CHECK(!find(3, 4));
	check_walk(COUNT);
	hash_table_clear(&table);
}

static void what_is_removed_is_gone_and_the_rest_stays(void)
{
	add_all(100);
	for (uint64_t i = 0; i < COUNT; i += 2)
		hash_table_remove(&table, &items[i].link);
	CHECK_EQUAL(table.count, COUNT / 2);
	for (uint64_t i = 0; i < COUNT; i++)
		CHECK(find(i, i % 100) == (i % 2 ? &items[i] : NULL));
	check_walk(COUNT / 2);
	hash_table_clear(&table);
}

int main(void)
{
	RUN(empty_table_has_nothing);
	RUN(everything_added_is_found_when_the_table_has_grown);
	RUN(entries_with_equal_hashes_are_told_apart);
	RUN(what_is_removed_is_gone_and_the_rest_stays);
	return 0;
}
