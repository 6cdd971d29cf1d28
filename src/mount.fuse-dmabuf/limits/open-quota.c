/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <limits.h>
#include <stdatomic.h>

#include "limits/open-quota.h"
#include "log/log.h"

/* Users with the same remainder have one share together: rare, and no table grows by what users do. */
#define USERS 1024u

static struct {
	atomic_uint all, of_user[USERS];
	unsigned int max;
} open_files = { .max = UINT_MAX };

/*
 * What the kernel keeps of an open file, here and in the source, is about 4 KiB: a quarter of the memory at most.
 * systemd sets fs.nr_open to 2^30, and of so many descriptors no user ever has more than its share.
 */
#define MEMORY_OF_OPEN 16384u

void open_quota_begin(size_t descriptors, uint64_t memory)
{
	/* An open takes one or two. */
	uint64_t max = descriptors / 2;

	if (max > memory / MEMORY_OF_OPEN)
		max = memory / MEMORY_OF_OPEN;
	open_files.max = max < UINT_MAX ? (unsigned int)max : UINT_MAX;
}

void open_quota_add(uid_t uid, unsigned int count)
{
	open_files.all += count;
	open_files.of_user[uid % USERS] += count;
}

void open_quota_remove(uid_t uid, unsigned int count)
{
	open_files.all -= count;
	open_files.of_user[uid % USERS] -= count;
}

static void explain(uid_t uid, unsigned int own)
{
	static atomic_llong next;

	if (log_is_due(&next))
		log_warning("uid %u has %u files open, of %u that the server has room for: it gets ENFILE for more", uid,
			    own, open_files.max);
}

/*
 * While there is much room it is anybody's. The last quarter is for those who have less than an eighth, and the last
 * sixteenth for root alone: one person can have many uids (subuid(5)).
 */
bool open_quota_is_left(uid_t uid)
{
	unsigned int own = open_files.of_user[uid % USERS], all = open_files.all;

	if (!uid || all < open_files.max / 4 * 3 || (own < open_files.max / 8 && all < open_files.max / 16 * 15))
		return true;
	explain(uid, own);
	return false;
}
