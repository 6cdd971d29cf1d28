/* SPDX-License-Identifier: GPL-2.0-or-later */

#include "check.h"
#include "limits/open-quota.h"
#include "log/log.h"

enum { ROOM = 1024, GREEDY = 1000, OTHER = 1001 };

static unsigned int opened(uid_t uid, unsigned int most)
{
	unsigned int count = 0;

	for (; count < most && open_quota_is_left(uid); count++)
		open_quota_add(uid, 1);
	return count;
}

/* fs.nr_open is 2^30 where systemd is, and that many files are never open. */
static void share_is_of_what_memory_has_room_for(void)
{
	open_quota_begin(1 << 30, (uint64_t)ROOM * 16384);
	CHECK_EQUAL(opened(GREEDY, 2 * ROOM), ROOM / 4 * 3);
	CHECK_EQUAL(opened(OTHER, ROOM / 8), ROOM / 8);
	CHECK(open_quota_is_left(0));
}

int main(void)
{
	log_set_level(LOG_EMERG);
	RUN(share_is_of_what_memory_has_room_for);
	return 0;
}
