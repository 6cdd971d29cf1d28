/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The hash table of the server: finds the structures that its users link into it. */
#include <stdlib.h>

#include "containers/hash-table.h"

static size_t bucket_count_of(const struct hash_table *table)
{
	return table->buckets ? table->bucket_count : HASH_TABLE_FIXED_BUCKETS;
}

/* The multiplication spreads consecutive numbers over the bits that choose the bucket. */
static size_t bucket_of(uint64_t hash, size_t bucket_count)
{
	return (size_t)(hash * 0x9e3779b97f4a7c15u >> 32) & (bucket_count - 1);
}

/* Returns the address of the pointer to the first link of a bucket. */
static struct hash_link **bucket_at(const struct hash_table *table, size_t bucket)
{
	return (struct hash_link **)(table->buckets ? table->buckets : table->fixed_buckets) +
	       bucket;
}

static struct hash_link **bucket_for(const struct hash_table *table, uint64_t hash)
{
	return bucket_at(table, bucket_of(hash, bucket_count_of(table)));
}

static void push(struct hash_link **bucket, struct hash_link *link)
{
	link->next = *bucket;
	*bucket = link;
}

/* Doubles the number of buckets. Without memory the table stays as it is. */
static void grow(struct hash_table *table)
{
	size_t old_count = bucket_count_of(table), count = 2 * old_count;
	struct hash_link **buckets = calloc(count, sizeof(*buckets)), *link, *next;

	if (!buckets)
		return;
	for (size_t i = 0; i < old_count; i++) {
		for (link = *bucket_at(table, i); link; link = next) {
			next = link->next;
			push(&buckets[bucket_of(link->hash, count)], link);
		}
	}
	free(table->buckets);
	table->buckets = buckets;
	table->bucket_count = count;
}

void hash_table_add(struct hash_table *table, struct hash_link *link, uint64_t hash)
{
	if (++table->count > bucket_count_of(table))
		grow(table);
	link->hash = hash;
	push(bucket_for(table, hash), link);
}

void hash_table_remove(struct hash_table *table, struct hash_link *link)
{
	struct hash_link **slot = bucket_for(table, link->hash);

	while (*slot != link)
		slot = &(*slot)->next;
	*slot = link->next;
	table->count--;
}

static struct hash_link *first_with(struct hash_link *link, uint64_t hash)
{
	while (link && link->hash != hash)
		link = link->next;
	return link;
}

struct hash_link *hash_table_find(const struct hash_table *table, uint64_t hash)
{
	return first_with(*bucket_for(table, hash), hash);
}

struct hash_link *hash_table_find_next(const struct hash_link *link)
{
	return first_with(link->next, link->hash);
}

struct hash_link *hash_table_walk(const struct hash_table *table, const struct hash_link *link)
{
	size_t count = bucket_count_of(table), bucket = link ? bucket_of(link->hash, count) + 1 : 0;

	if (link && link->next)
		return link->next;
	while (bucket < count && !*bucket_at(table, bucket))
		bucket++;
	return bucket < count ? *bucket_at(table, bucket) : NULL;
}

void hash_table_clear(struct hash_table *table)
{
	free(table->buckets);
	*table = (struct hash_table){ 0 };
}
