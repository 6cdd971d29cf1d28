/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "identity/groups.h"

/* As many as users with tokens at the same time: few. */
#define BUCKETS 64u

struct groups {
	struct groups *next;    /* in its bucket */
	size_t users;
	uint32_t hash;
	size_t count;
	gid_t gids[];
};

static struct {
	pthread_mutex_t lock;
	struct groups *buckets[BUCKETS];
} lists = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* FNV-1a, a word at a time. */
static uint32_t hash_of(const gid_t *gids, size_t count)
{
	uint32_t hash = 2166136261u;

	for (size_t i = 0; i < count; i++)
		hash = (hash ^ gids[i]) * 16777619u;
	return hash;
}

static struct groups *find(const gid_t *gids, size_t count, uint32_t hash)
{
	struct groups *groups = lists.buckets[hash % BUCKETS];

	while (groups && (groups->hash != hash || groups->count != count ||
			  memcmp(groups->gids, gids, count * sizeof(*gids))))
		groups = groups->next;
	return groups;
}

static struct groups *add(const gid_t *gids, size_t count, uint32_t hash)
{
	struct groups *groups = malloc(sizeof(*groups) + count * sizeof(*gids));

	if (!groups)
		return NULL;
	*groups = (struct groups){ .next = lists.buckets[hash % BUCKETS], .hash = hash, .count = count };
	memcpy(groups->gids, gids, count * sizeof(*gids));
	lists.buckets[hash % BUCKETS] = groups;
	return groups;
}

const gid_t *groups_get(const gid_t *gids, size_t count)
{
	uint32_t hash = hash_of(gids, count);
	struct groups *groups;

	if (!count)
		return NULL;
	pthread_mutex_lock(&lists.lock);
	groups = find(gids, count, hash);
	if (!groups)
		groups = add(gids, count, hash);
	if (groups)
		groups->users++;
	pthread_mutex_unlock(&lists.lock);
	return groups ? groups->gids : NULL;
}

static void remove_list(struct groups *groups)
{
	struct groups **slot = &lists.buckets[groups->hash % BUCKETS];

	while (*slot != groups)
		slot = &(*slot)->next;
	*slot = groups->next;
	free(groups);
}

void groups_put(const gid_t *gids)
{
	struct groups *groups;

	if (!gids)
		return;
	groups = (struct groups *)((char *)gids - offsetof(struct groups, gids));
	pthread_mutex_lock(&lists.lock);
	if (!--groups->users)
		remove_list(groups);
	pthread_mutex_unlock(&lists.lock);
}
