/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of reading the credentials and user namespaces of processes, also where /proc hides
 * processes.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "identity/owner.h"
#include "identity/privileges.h"
#include "identity/processes.h"

/* The child process ends when this pipe end is closed, which a failing check does, too. */
static int child_pipe;

/* Starts a process of a user, which waits until child_pipe is closed. */
static pid_t start_process_of(uid_t uid)
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
	child_pipe = ends[1];
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
	pid_t child = start_process_of(1000);
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/status", child);
	while (!access(path, R_OK))
		usleep(1000);
	CHECK(owner_read_process(&owner, child));
	owner_free(&owner);
	close(child_pipe);
	CHECK_EQUAL(waitpid(child, NULL, 0), child);
	CHECK(!owner_read_process(&owner, child));
	CHECK_EQUAL(errno, EACCES);
}

/*
 * Starts a process that calls @prepare and then waits until child_pipe is closed. Returns when
 * @prepare has returned; if a check in it fails, a check here fails, too.
 */
static pid_t start_process(void (*prepare)(void))
{
	int ends[2], told[2];
	pid_t child;
	char none;

	CHECK(!pipe(ends) && !pipe(told));
	child = fork();
	CHECK(child >= 0);
	if (!child) {
		close(ends[1]);
		prepare();
		CHECK(write(told[1], "", 1) == 1);
		_exit(read(ends[0], &none, 1) != 0);
	}
	close(ends[0]);
	close(told[1]);
	CHECK(read(told[0], &none, 1) == 1);
	close(told[0]);
	child_pipe = ends[1];
	return child;
}

static void end_process(pid_t child)
{
	int status;

	close(child_pipe);
	CHECK_EQUAL(waitpid(child, &status, 0), child);
	CHECK_EQUAL(status, 0);
}

static void write_map(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static void take_other_file_system_ids(void)
{
	static const gid_t groups[] = { 2000, 3000 };

	CHECK(!setgroups(2, groups));
	setfsgid(77);
	setfsuid(66);
}

static void ids_of_a_process_are_those_that_files_see(void)
{
	pid_t child = start_process(take_other_file_system_ids);
	struct process process;

	CHECK(process_read(child, &process));
	CHECK(process.fsuid == 66 && process.fsgid == 77);
	CHECK_EQUAL(process.group_count, 2);
	CHECK(process.groups[0] == 2000 && process.groups[1] == 3000);
	CHECK(!(process.capabilities & CAPABILITY(CAP_FOWNER)) &&
	      process.capabilities & CAPABILITY(CAP_SETUID));
	process_free(&process);
	end_process(child);
}

static void join_all_groups(void)
{
	static gid_t groups[65536];

	for (gid_t i = 0; i < 65536; i++)
		groups[i] = 4294900000 + i;
	CHECK(!setgroups(65536, groups));
}

static void all_groups_of_a_process_are_known(void)
{
	pid_t child = start_process(join_all_groups);
	struct process process;
	struct owner owner = { 0 };

	CHECK(process_read(child, &process));
	CHECK_EQUAL(process.group_count, 65536);
	for (gid_t i = 0; i < 65536; i++)
		CHECK_EQUAL(process.groups[i], 4294900000 + i);
	process_free(&process);
	CHECK(!owner_read_process(&owner, child));
	CHECK_EQUAL(errno, E2BIG);
	end_process(child);
}

/* Takes a process name that looks like another line of /proc/PID/status. */
static void pretend_to_be_root(void)
{
	CHECK(!setresgid(1000, 1000, 1000) && !setresuid(1000, 1000, 1000));
	CHECK(!prctl(PR_SET_NAME, "x\nUid:\t0\t0"));
}

static void name_of_a_process_forges_no_ids(void)
{
	pid_t child = start_process(pretend_to_be_root);
	struct process process;

	CHECK(process_read(child, &process));
	CHECK_EQUAL(process.fsuid, 1000);
	process_free(&process);
	end_process(child);
}

static void enter_namespace(void)
{
	CHECK(!unshare(CLONE_NEWUSER));
	write_map("/proc/self/uid_map", "0 0 1\n");
	write_map("/proc/self/setgroups", "deny");
	write_map("/proc/self/gid_map", "0 0 1\n");
}

static void enter_namespace_without_ids(void)
{
	CHECK(!unshare(CLONE_NEWUSER));
}

/*
 * Maps all ids into the namespace of a process. From inside, the process could map only its own
 * ids.
 */
static void give_all_ids(pid_t process)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/uid_map", process);
	write_map(path, "0 0 4294967295\n");
	snprintf(path, sizeof(path), "/proc/%d/gid_map", process);
	write_map(path, "0 0 4294967295\n");
}

static bool maps_file_of(const struct user_namespace *user_namespace, uid_t uid, gid_t gid)
{
	return user_namespace_maps_user(user_namespace, uid) &&
	       user_namespace_maps_group(user_namespace, gid);
}

static void capabilities_of_another_namespace_are_told_from_ones_own(void)
{
	static struct user_namespace user_namespace;
	pid_t child;

	child = start_process(enter_namespace);
	CHECK(!user_namespace_is_own(child) && user_namespace_read(child, &user_namespace));
	CHECK(maps_file_of(&user_namespace, 0, 0));
	CHECK(!maps_file_of(&user_namespace, 1, 0) && !maps_file_of(&user_namespace, 0, 1));
	end_process(child);
	child = start_process(enter_namespace_without_ids);
	CHECK(!user_namespace_is_own(child) && user_namespace_read(child, &user_namespace));
	CHECK(!maps_file_of(&user_namespace, 0, 0) && !maps_file_of(&user_namespace, 65534, 65534));
	end_process(child);
	child = start_process(enter_namespace_without_ids);
	give_all_ids(child);
	CHECK(!user_namespace_is_own(child) && user_namespace_read(child, &user_namespace));
	CHECK(maps_file_of(&user_namespace, 0, 0) &&
	      maps_file_of(&user_namespace, 4294967294, 4294967294));
	end_process(child);
	CHECK(user_namespace_is_own(getpid()));
}

static void every_line_of_a_map_counts(void)
{
	static struct user_namespace user_namespace;

	strcpy(user_namespace.uids, "         0       1000          1\n"
				    "         1     100000      65536\n");
	strcpy(user_namespace.gids, user_namespace.uids);
	CHECK(maps_file_of(&user_namespace, 1000, 1000) &&
	      maps_file_of(&user_namespace, 100000, 165535));
	CHECK(!maps_file_of(&user_namespace, 0, 1000) &&
	      !maps_file_of(&user_namespace, 1000, 1001));
	CHECK(!maps_file_of(&user_namespace, 99999, 1000) &&
	      !maps_file_of(&user_namespace, 1000, 165536));
}

int main(void)
{
	hide_processes_of_others();
	CHECK(processes_begin());
	/* These processes need the privileges that privileges_drop() takes away. */
	RUN(ids_of_a_process_are_those_that_files_see);
	RUN(all_groups_of_a_process_are_known);
	RUN(name_of_a_process_forges_no_ids);
	RUN(capabilities_of_another_namespace_are_told_from_ones_own);
	RUN(every_line_of_a_map_counts);
	CHECK(privileges_drop());
	RUN(groups_of_a_hidden_process_are_known);
	processes_end();
	return 0;
}
