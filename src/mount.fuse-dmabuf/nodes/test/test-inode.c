/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests of the table of nodes. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "nodes/test/test-node.h"

static void all_names_lead_to_one_node(void)
{
	struct inode *one = node_lookup("one");

	CHECK(!linkat(node_root()->fd, "one", node_root()->fd, "two", 0));
	CHECK(node_lookup("two") == one);
	CHECK(!renameat(node_root()->fd, "one", node_root()->fd, "three"));
	CHECK(node_lookup("three") == one);
	CHECK_EQUAL(one->lookups, 3);
	inode_forget(one, 3);
	node_remove("two");
	node_remove("three");
}

static void node_lives_as_long_as_it_is_known(void)
{
	struct inode *inode = node_lookup("file");
	struct stat attr;

	CHECK(node_lookup("file") == inode);
	node_remove("file");
	inode_forget(inode, 1);
	CHECK(!fstat(inode->fd, &attr) && !attr.st_nlink);
	CHECK(inode_use(inode));
	inode_keep(inode);
	inode_let_go(inode);
	inode_end_use(inode);
	CHECK_EQUAL(inode->lookups, 1);
	inode_forget(inode, 1);
}

static void forgotten_file_gets_its_nodeid_again(void)
{
	struct inode *inode = node_lookup("file");
	uint64_t nodeid = inode->nodeid;
	uint32_t generation = inode->identity.generation;

	CHECK(inode_from_nodeid(nodeid) == inode);
	inode_forget(inode, 1);
	CHECK(!inode_from_nodeid(nodeid));
	inode = node_lookup("file");
	CHECK_EQUAL(inode->nodeid, nodeid);
	CHECK_EQUAL(inode->identity.generation, generation);
	inode_forget(inode, 1);
	node_remove("file");
}

/* The kernel may forget a node as soon as its request is answered. */
static void node_in_use_outlasts_being_forgotten(void)
{
	struct inode *inode = node_lookup("file");
	struct stat attr;

	CHECK(inode_use(inode));
	inode_forget(inode, 1);
	CHECK(!fstat(inode->fd, &attr) && attr.st_ino == inode->ino);
	inode_end_use(inode);
	node_remove("file");
}

static void root_is_never_forgotten(void)
{
	inode_forget(node_root(), 100);
	CHECK(node_root()->nodeid == FUSE_ROOT_ID);
	CHECK(node_root()->fd >= 0);
}

static void nodes_are_found_among_many(void)
{
	enum { COUNT = 3000 };
	static struct inode *inodes[COUNT];
	char name[16];

	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "%d", i);
		inodes[i] = node_lookup(name);
	}
	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "%d", i);
		CHECK(node_lookup(name) == inodes[i]);
		inode_forget(inodes[i], 2);
		node_remove(name);
	}
}

static void *look_up_and_forget(void *unused)
{
	struct inode *inode;
	char name[16];

	for (int i = 0; i < 20000; i++) {
		snprintf(name, sizeof(name), "%d", i % 7);
		inode = node_lookup(name);
		CHECK(inode->nodeid != FUSE_ROOT_ID);
		inode_forget(inode, 1);
	}
	return unused;
}

static void threads_look_up_and_forget(void)
{
	pthread_t threads[4];
	char name[16];

	for (int i = 0; i < 4; i++)
		CHECK(!pthread_create(&threads[i], NULL, look_up_and_forget, NULL));
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 7; i++) {
		snprintf(name, sizeof(name), "%d", i);
		node_remove(name);
	}
}

static void symbolic_links_are_not_followed(void)
{
	struct stat attr;
	struct inode *inode;

	CHECK(!symlinkat("/", node_root()->fd, "link"));
	inode = inode_lookup(inode_open_child(node_root(), "link"), &attr);
	CHECK(inode && S_ISLNK(attr.st_mode));
	inode_forget(inode, 1);
	node_remove("link");
}

static void reopened_file_is_the_same_without_its_name(void)
{
	struct inode *inode = node_lookup("file");
	struct stat attr;
	int fd;

	node_remove("file");
	fd = reopen(inode->fd, O_RDWR | O_NOFOLLOW);
	CHECK(fd >= 0 && !fstat(fd, &attr) && attr.st_ino == inode->ino);
	close(fd);
	inode_forget(inode, 1);
}

int main(void)
{
	nodes_begin();
	RUN(all_names_lead_to_one_node);
	RUN(node_lives_as_long_as_it_is_known);
	RUN(forgotten_file_gets_its_nodeid_again);
	RUN(node_in_use_outlasts_being_forgotten);
	RUN(root_is_never_forgotten);
	RUN(nodes_are_found_among_many);
	RUN(threads_look_up_and_forget);
	RUN(symbolic_links_are_not_followed);
	RUN(reopened_file_is_the_same_without_its_name);
	nodes_end();
	return 0;
}
