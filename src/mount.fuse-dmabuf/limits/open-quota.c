/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Counts the open files of each user, and decides who may open more when they become many. */
#include <limits.h>
#include <stdatomic.h>

#include "limits/open-quota.h"
#include "log/log.h"

/*
 * Uids with the same remainder are counted together, which is rare: the table has a fixed size,
 * because users could make another one grow.
 */
#define USERS 1024u

static struct {
	atomic_uint all, of_user[USERS];
	unsigned int max;
} open_files = { .max = UINT_MAX };

/*
 * In bytes of the machine's memory, per open file. The kernel keeps about 4 KiB for one, counted on
 * the mount and in the source: all open files together take a quarter of the memory at most. The
 * limit of descriptors alone would never be reached: systemd sets fs.nr_open to 2^30.
 */
#define MEMORY_OF_OPEN 16384u

void open_quota_begin(size_t descriptors, uint64_t memory)
{
	/* An open file takes one or two descriptors. */
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

static void explain_quota(uid_t uid, unsigned int own)
{
	static atomic_llong next;

	if (log_is_due(&next))
		log_warning("uid %u has %u files open, of %u that the server has room for: "
			    "it gets ENFILE for more", uid, own, open_files.max);
}

/*
 * Any user may take the first three quarters. The last quarter is for users who have less than an
 * eighth, and the last sixteenth for root alone, because one person can have many uids (subuid(5)).
 */
bool open_quota_is_left(uid_t uid)
{
	unsigned int own = open_files.of_user[uid % USERS], all = open_files.all;

	if (!uid || all < open_files.max / 4 * 3 ||
	    (own < open_files.max / 8 && all < open_files.max / 16 * 15))
		return true;
	explain_quota(uid, own);
	return false;
}
