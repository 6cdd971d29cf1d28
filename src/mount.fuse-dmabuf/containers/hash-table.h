/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * containers/ has the one hash table of the server; lists are those of <sys/queue.h>.
 * May call: nothing.
 */
#ifndef HASH_TABLE_H
#define HASH_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* 512 bytes in each table: with so few buckets no table needs memory of its own. */
#define HASH_TABLE_FEW 64u

/* Part of each structure that is in a table. */
struct hash_link {
	struct hash_link *next;         /* in its bucket */
	uint64_t hash;
};

/*
 * A table of structures that somebody else allocates. All zero is an empty table. Adding never
 * fails: when there is no memory to grow, chains become longer. The caller provides the lock.
 */
struct hash_table {
	struct hash_link **buckets;     /* allocated, or NULL: few */
	size_t bucket_count;            /* of allocated ones; a power of two */
	size_t count;
	struct hash_link *few[HASH_TABLE_FEW];
};

/* The structure that has @link as the member of that name. */
#define hash_entry(link, type, member) ((type *)((char *)(link) - offsetof(type, member)))

/* Adds a link that is in no table. The hash need not be spread: consecutive numbers are good. */
void hash_table_add(struct hash_table *table, struct hash_link *link, uint64_t hash);

/* Removes a link that is in the table. */
void hash_table_remove(struct hash_table *table, struct hash_link *link);

/* Returns a link with this hash, or NULL. */
struct hash_link *hash_table_find(const struct hash_table *table, uint64_t hash);

/* Returns another link with the hash of @link, or NULL after the last. */
struct hash_link *hash_table_find_next(const struct hash_link *link);

/* Returns the link after @link, in no order: NULL gives the first, and NULL is after the last. */
struct hash_link *hash_table_walk(const struct hash_table *table, const struct hash_link *link);

/* Makes the table empty, and frees its memory. The structures are the caller's to free. */
void hash_table_clear(struct hash_table *table);

#endif
