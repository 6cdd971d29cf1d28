/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Shared lists of group ids: a hash table of reference-counted lists. */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "containers/hash-table.h"
#include "identity/groups.h"

struct groups {
	struct hash_link link;
	size_t users;
	size_t count;
	gid_t gids[];
};

static struct {
	pthread_mutex_t lock;
	struct hash_table groups;       /* by hash_gids() */
} lists = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* FNV-1a, over words instead of bytes. */
static uint32_t hash_gids(const gid_t *gids, size_t count)
{
	uint32_t hash = 2166136261u;

	for (size_t i = 0; i < count; i++)
		hash = (hash ^ gids[i]) * 16777619u;
	return hash;
}

static struct groups *groups_of(struct hash_link *link)
{
	return hash_entry(link, struct groups, link);
}

static bool has_gids(const struct groups *groups, const gid_t *gids, size_t count)
{
	return groups->count == count && !memcmp(groups->gids, gids, count * sizeof(*gids));
}

static struct groups *find_list(const gid_t *gids, size_t count, uint32_t hash)
{
	struct hash_link *link = hash_table_find(&lists.groups, hash);

	while (link && !has_gids(groups_of(link), gids, count))
		link = hash_table_find_next(link);
	return link ? groups_of(link) : NULL;
}

static struct groups *add_list(const gid_t *gids, size_t count, uint32_t hash)
{
	struct groups *groups = malloc(sizeof(*groups) + count * sizeof(*gids));

	if (!groups)
		return NULL;
	*groups = (struct groups){ .count = count };
	memcpy(groups->gids, gids, count * sizeof(*gids));
	hash_table_add(&lists.groups, &groups->link, hash);
	return groups;
}

const gid_t *groups_get(const gid_t *gids, size_t count)
{
	uint32_t hash = hash_gids(gids, count);
	struct groups *groups;

	if (!count)
		return NULL;
	pthread_mutex_lock(&lists.lock);
	groups = find_list(gids, count, hash);
	if (!groups)
		groups = add_list(gids, count, hash);
	if (groups)
		groups->users++;
	pthread_mutex_unlock(&lists.lock);
	return groups ? groups->gids : NULL;
}

void groups_put(const gid_t *gids)
{
	struct groups *groups;

	if (!gids)
		return;
	groups = (struct groups *)((char *)gids - offsetof(struct groups, gids));
	pthread_mutex_lock(&lists.lock);
	if (!--groups->users) {
		hash_table_remove(&lists.groups, &groups->link);
		free(groups);
	}
	pthread_mutex_unlock(&lists.lock);
}
