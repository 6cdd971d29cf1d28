/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests how many files one user may open before others have too little. */
#include "check.h"
#include "limits/open-quota.h"
#include "log/log.h"

enum { FILES_MAX = 1024, GREEDY = 1000, OTHER = 1001 };

/* Opens files until the quota is used up, at most @most. Returns how many. */
static unsigned int open_files(uid_t uid, unsigned int most)
{
	unsigned int count = 0;

	for (; count < most && open_quota_is_left(uid); count++)
		open_quota_add(uid, 1);
	return count;
}

/* systemd sets fs.nr_open to 2^30. So many files are never open: memory must be the limit. */
static void share_is_of_what_memory_has_room_for(void)
{
	open_quota_begin(1 << 30, (uint64_t)FILES_MAX * 16384);
	CHECK_EQUAL(open_files(GREEDY, 2 * FILES_MAX), FILES_MAX / 4 * 3);
	CHECK_EQUAL(open_files(OTHER, FILES_MAX / 8), FILES_MAX / 8);
	CHECK(open_quota_is_left(0));
}

int main(void)
{
	log_set_level(LOG_EMERG);
	RUN(share_is_of_what_memory_has_room_for);
	return 0;
}
