/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * containers/ has the one hash table of the server; lists are those of <sys/queue.h>.
 * May call: nothing.
 */
#ifndef HASH_TABLE_H
#define HASH_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* The number of buckets inside of each table (512 bytes): a small table allocates no memory. */
#define HASH_TABLE_FIXED_BUCKETS 64u

/* Part of each structure that is in a table. */
struct hash_link {
	struct hash_link *next;         /* in its bucket */
	uint64_t hash;
};

/*
 * A table of structures that its user allocates. All zero is an empty table. Adding never fails:
 * when there is no memory to grow, chains become longer. The caller provides the lock.
 */
struct hash_table {
	struct hash_link **buckets;     /* allocated, or NULL: fixed_buckets */
	size_t bucket_count;            /* of the allocated ones; a power of two */
	size_t count;                   /* of links */
	struct hash_link *fixed_buckets[HASH_TABLE_FIXED_BUCKETS];
};

/* Returns the structure of this type that has @link as its @member. */
#define hash_entry(link, type, member) ((type *)((char *)(link) - offsetof(type, member)))

/* Adds a link that is in no table. Consecutive numbers are good hashes: the table spreads them. */
void hash_table_add(struct hash_table *table, struct hash_link *link, uint64_t hash);

/* Removes a link that is in the table. */
void hash_table_remove(struct hash_table *table, struct hash_link *link);

/* Returns a link with this hash, or NULL. */
struct hash_link *hash_table_find(const struct hash_table *table, uint64_t hash);

/* Returns another link with the hash of @link, or NULL after the last. */
struct hash_link *hash_table_find_next(const struct hash_link *link);

/*
 * Returns the first link, if @link is NULL, or the one after @link, in no particular order. Returns
 * NULL after the last.
 */
struct hash_link *hash_table_walk(const struct hash_table *table, const struct hash_link *link);

/* Makes the table empty and frees its buckets. The caller frees the structures. */
void hash_table_clear(struct hash_table *table);

#endif
