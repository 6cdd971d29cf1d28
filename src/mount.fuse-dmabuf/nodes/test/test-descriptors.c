/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests of nodes that are more than the descriptors they may have. */
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "identity/owner.h"
#include "identity/processes.h"
#include "limits/descriptor-limit.h"
#include "log/log.h"
#include "log/test/test-said.h"
#include "nodes/handle.h"
#include "nodes/test/test-node.h"

enum { MAX = 8, COUNT = 100 };

static struct inode *inodes[COUNT];

static void make_many(void)
{
	char name[16];

	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "%d", i);
		inodes[i] = node_lookup(name);
	}
}

static void forget_many(void)
{
	char name[16];

	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "%d", i);
		inode_forget(inodes[i], 1);
		node_remove(name);
	}
	CHECK_EQUAL(descriptors_count(), 0);
}

/* Returns true if the node's descriptor is of the file with the name. */
static bool has_file_of_name(const struct inode *inode, const char *name)
{
	struct stat node, named;

	return !fstat(inode->fd, &node) && !fstatat(node_root()->fd, name, &named, 0) &&
	       node.st_ino == named.st_ino;
}

static void nodes_beyond_the_limit_are_opened_again_when_used(void)
{
	char name[16];

	make_many();
	CHECK(descriptors_count() <= MAX + 1);
	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "%d", i);
		CHECK(inode_use(inodes[i]));
		CHECK(has_file_of_name(inodes[i], name));
		inode_end_use(inodes[i]);
		CHECK(descriptors_count() <= MAX + 1);
	}
	forget_many();
}

static void node_in_use_keeps_its_descriptor(void)
{
	struct inode *used = node_lookup("used");
	struct stat attr;
	int fd;

	CHECK(inode_use(used));
	fd = used->fd;
	node_remove("used");
	make_many();
	CHECK_EQUAL(used->fd, fd);
	CHECK(!fstat(fd, &attr) && attr.st_ino == used->ino && !attr.st_nlink);
	inode_end_use(used);
	inode_forget(used, 1);
	forget_many();
}

static void known_name_leads_to_its_node_without_descriptor(void)
{
	make_many();
	CHECK_EQUAL(inodes[0]->fd, -1);
	CHECK(node_lookup("0") == inodes[0]);
	inode_forget(inodes[0], 1);
	forget_many();
}

static void node_of_a_removed_file_is_stale(void)
{
	make_many();
	CHECK_EQUAL(inodes[0]->fd, -1);
	node_remove("0");
	CHECK(!inode_use(inodes[0]));
	CHECK_EQUAL(errno, ESTALE);
	close(openat(node_root()->fd, "0", O_CREAT | O_WRONLY, 0600));
	forget_many();
}

static void file_with_the_number_of_another_is_another_node(void)
{
	struct inode *next;

	make_many();
	CHECK_EQUAL(inodes[0]->fd, -1);
	/* Turns the handle into that of an earlier file with the same inode number. */
	for (unsigned int i = 0; i < inodes[0]->descriptor.handle->handle_bytes; i++)
		inodes[0]->descriptor.handle->f_handle[i] ^= 0xff;
	next = node_lookup("0");
	CHECK_EQUAL(next->ino, inodes[0]->ino);
	CHECK(next != inodes[0] && next->nodeid != inodes[0]->nodeid);
	CHECK(node_lookup("0") == next);
	CHECK(!inode_use(inodes[0]));
	CHECK_EQUAL(errno, ESTALE);
	CHECK(inode_from_nodeid(inodes[0]->nodeid) == inodes[0]);
	CHECK(inode_from_nodeid(next->nodeid) == next);
	inode_forget(next, 2);
	forget_many();
}

static void full_process_makes_room(void)
{
	int count = 0;

	make_many();
	errno = EMFILE;
	while (may_open_again())
		CHECK(++count < COUNT);
	CHECK(count > 0);
	CHECK_EQUAL(errno, EMFILE);
	CHECK_EQUAL(descriptors_count(), 0);
	errno = ENOENT;
	CHECK(!may_open_again());
	forget_many();
}

enum { FULL = 64 };

static struct rlimit limit;
static int fds[FULL], fd_count;

static void fill_process(void)
{
	CHECK(!getrlimit(RLIMIT_NOFILE, &limit));
	CHECK(!setrlimit(RLIMIT_NOFILE, &(struct rlimit){ .rlim_cur = FULL,
							  .rlim_max = limit.rlim_max }));
	while ((fds[fd_count] = dup(STDERR_FILENO)) >= 0)
		fd_count++;
	CHECK_EQUAL(errno, EMFILE);
}

static void empty_process(void)
{
	while (fd_count)
		close(fds[--fd_count]);
	CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
}

/* A member of the file's group must not be refused a token for want of a descriptor. */
static void groups_are_read_by_a_full_process(void)
{
	static const gid_t groups[] = { 7, 2000 };
	struct owner owner = { 0 };

	make_many();
	CHECK(!setgroups(2, groups));
	fill_process();
	CHECK(owner_read_process(&owner, getpid()));
	CHECK_EQUAL(owner.group_count, 2);
	owner_free(&owner);
	empty_process();
	forget_many();
}

/* No node has a descriptor that could be closed to read the groups. */
static void groups_that_cannot_be_read_are_not_taken_for_none(void)
{
	struct owner owner = { 0 };

	fill_process();
	CHECK(!owner_read_process(&owner, getpid()));
	CHECK_EQUAL(errno, ENFILE);
	CHECK(!owner.groups && !owner.group_count);
	empty_process();
	CHECK(!owner_read_process(&owner, 0));
	CHECK_EQUAL(errno, EACCES);
}

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

static int minutes_later;

int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
	int result = __real_clock_gettime(clock, now);

	now->tv_sec += 60 * minutes_later;
	return result;
}

/* Returns what the log says when a file is opened and the process has no descriptor left. */
static const char *said_for_want_of_a_descriptor(void)
{
	const char *said;

	said_begin();
	fill_process();
	CHECK(inode_open_child(node_root(), ".") < 0);
	empty_process();
	said = said_end();
	CHECK(!*said || strstr(said, "descriptors are not enough"));
	return said;
}

static void want_of_descriptors_is_told_once_a_minute(void)
{
	minutes_later++;
	CHECK(*said_for_want_of_a_descriptor());
	CHECK(!*said_for_want_of_a_descriptor());
	minutes_later++;
	CHECK(*said_for_want_of_a_descriptor());
}

static void *use_at_random(void *seed)
{
	unsigned int state = (unsigned int)(uintptr_t)seed;
	struct stat attr;
	int i;

	for (int round = 0; round < 20000; round++) {
		i = rand_r(&state) % COUNT;
		CHECK(inode_use(inodes[i]));
		CHECK(!fstat(inodes[i]->fd, &attr) && attr.st_ino == inodes[i]->ino);
		inode_end_use(inodes[i]);
	}
	return NULL;
}

static void threads_use_more_nodes_than_there_are_descriptors(void)
{
	pthread_t threads[4];

	make_many();
	for (uintptr_t i = 0; i < 4; i++)
		CHECK(!pthread_create(&threads[i], NULL, use_at_random, (void *)(i + 1)));
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	CHECK(descriptors_count() <= MAX + 4);
	forget_many();
}

int main(void)
{
	struct file_handle *handle;

	CHECK(processes_begin());
	nodes_begin();
	handle = handle_make(node_root()->fd);
	if (!handle) {
		nodes_end();
		return 77;      /* skipped: the test directory's file system has no handles */
	}
	free(handle);
	descriptors_begin(MAX * 2);
	RUN(nodes_beyond_the_limit_are_opened_again_when_used);
	RUN(node_in_use_keeps_its_descriptor);
	RUN(known_name_leads_to_its_node_without_descriptor);
	RUN(node_of_a_removed_file_is_stale);
	RUN(file_with_the_number_of_another_is_another_node);
	RUN(full_process_makes_room);
	RUN(groups_are_read_by_a_full_process);
	RUN(want_of_descriptors_is_told_once_a_minute);
	log_set_level(LOG_EMERG);
	RUN(groups_that_cannot_be_read_are_not_taken_for_none);
	RUN(threads_use_more_nodes_than_there_are_descriptors);
	nodes_end();
	processes_end();
	return 0;
}
