/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <limits.h>
#include <stdatomic.h>

#include "log.h"
#include "share.h"

/* Users with the same remainder have one share together: rare, and no table grows by what users do. */
#define USERS 1024u

static struct {
	atomic_uint all, of_user[USERS];
	unsigned int max;
} open_files = { .max = UINT_MAX };

void share_begin(size_t descriptors)
{
	/* An open takes one or two. */
	open_files.max = descriptors / 2 < UINT_MAX ? (unsigned int)(descriptors / 2) : UINT_MAX;
}

void share_add(uid_t uid)
{
	open_files.all++;
	open_files.of_user[uid % USERS]++;
}

void share_remove(uid_t uid)
{
	open_files.all--;
	open_files.of_user[uid % USERS]--;
}

static void explain(uid_t uid, unsigned int own)
{
	static atomic_llong next;

	if (log_is_due(&next))
		log_warning("uid %u has %u files open, of %u that the server has room for: it gets ENFILE for more", uid,
			    own, open_files.max);
}

/* While there is much room it is anybody's. The last quarter is for root, and for those who have less than an eighth. */
bool share_is_left(uid_t uid)
{
	unsigned int own = open_files.of_user[uid % USERS];

	if (!uid || open_files.all < open_files.max / 4 * 3 || own < open_files.max / 8)
		return true;
	explain(uid, own);
	return false;
}
