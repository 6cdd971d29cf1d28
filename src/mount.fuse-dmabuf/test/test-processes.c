/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Processes of users, where /proc hides them. */
#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "owner.h"
#include "privileges.h"
#include "processes.h"

static int life;        /* what the process waits for: closed with it, also when a check fails */

static pid_t process_of(uid_t uid)
{
	int ends[2];
	pid_t child;
	char none;

	CHECK(!pipe(ends));
	child = fork();
	CHECK(child >= 0);
	if (!child) {
		close(ends[1]);
		CHECK(!setuid(uid));
		_exit(read(ends[0], &none, 1) != 0);
	}
	close(ends[0]);
	life = ends[1];
	return child;
}

static void hide_processes_of_others(void)
{
	CHECK(!unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	CHECK(!mount("proc", "/proc", "proc", 0, "hidepid=invisible,gid=1"));
}

static void groups_of_a_hidden_process_are_known(void)
{
	struct owner owner = { 0 };
	pid_t child = process_of(1000);
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/status", child);
	while (!access(path, R_OK))
		usleep(1000);
	CHECK(owner_read_process(&owner, child));
	owner_free(&owner);
	close(life);
	CHECK_EQUAL(waitpid(child, NULL, 0), child);
	CHECK(!owner_read_process(&owner, child));
	CHECK_EQUAL(errno, EACCES);
}

int main(void)
{
	hide_processes_of_others();
	CHECK(processes_begin());
	CHECK(privileges_drop());
	RUN(groups_of_a_hidden_process_are_known);
	processes_end();
	return 0;
}
