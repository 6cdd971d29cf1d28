/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Policy files: what they allow, and how mistakes in them are logged. */
#include <errno.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/prctl.h>

#include "broker/policy-file.h"
#include "log/log.h"
#include "log/test/test-said.h"
#include "nodes/test/test-node.h"

#define FILE_NAME "/tmp/fuse-dmabuf-test-policy.conf"

static const struct policy defaults = { .all = { 100, 1000 }, .user = { 10, UINT64_MAX } };
static const struct owner user = { .uid = 1000, .gid = 1000 };
static const struct owner member = {
	.uid = 1001, .gid = 1001, .groups = (gid_t[]){ 7, 2000 }, .group_count = 2,
};

static struct inode *file;

static struct policy *read_text(const char *text)
{
	FILE *stream = fopen(FILE_NAME, "w");
	struct policy *policy;

	CHECK(stream && fputs(text, stream) >= 0 && !fclose(stream));
	policy = policy_file_read(FILE_NAME, &defaults);
	unlink(FILE_NAME);
	return policy;
}

static uint32_t allowed_on(const struct inode *inode, const char *text, const struct owner *owner)
{
	struct policy *policy = read_text(text);
	uint32_t directions;

	CHECK(policy);
	directions = policy_directions(policy, owner, inode, TOKEN_BOTH);
	policy_free(policy);
	return directions;
}

static uint32_t allowed(const char *text, const struct owner *owner)
{
	return allowed_on(file, text, owner);
}

/* Returns the line that is logged about a file with a mistake. */
static const char *mistake_of(const char *text)
{
	const char *said;

	said_begin();
	CHECK(!read_text(text));
	said = said_end();
	CHECK(strchr(said, '\n') == said + strlen(said) - 1);
	return said;
}

#define CHECK_MISTAKE(text, line, reason) \
	CHECK(strstr(mistake_of(text), FILE_NAME ":" line ": ") && strstr(mistake_of(text), reason))

static void what_is_not_set_is_as_in_the_mount_options(void)
{
	struct policy *policy = read_text("# nothing\n");

	CHECK(policy && policy->all.bytes == 1000 && policy->all.tokens == 100);
	CHECK(policy->user.tokens == 10);
	CHECK(!policy->rule_count && !policy->quota_count);
	policy_free(policy);
}

static void limits(void)
{
	struct policy *policy = read_text("max_bytes = \"64G\"; max_tokens = 5\n"
					  "user_max_bytes = 4096;user_max_tokens = 3000000000;");

	CHECK(policy && policy->all.bytes == 64ull << 30 && policy->all.tokens == 5);
	CHECK(policy->user.bytes == 4096 && policy->user.tokens == 3000000000);
	policy_free(policy);
}

static void first_rule_that_fits_decides(void)
{
	CHECK_EQUAL(allowed("", &user), TOKEN_BOTH);
	CHECK_EQUAL(allowed("rules = ( { allow = \"none\"; } );", &user), 0);
	CHECK_EQUAL(allowed("rules = ( { user = 1; allow = \"none\"; } );", &user), TOKEN_BOTH);
	CHECK_EQUAL(allowed("rules = ( { user = (1, \"1000\"); allow = \"read\"; }, "
			    "{ allow = \"none\"; } );", &user), FUSE_DMABUF_TOKEN_READ);
	CHECK_EQUAL(allowed("rules = ( { user = \"root\"; allow = \"none\"; } );", &user),
		    TOKEN_BOTH);
	CHECK_EQUAL(allowed("rules = ( { group = 2000; allow = \"write\"; }, "
			    "{ allow = \"read\"; } );", &member), FUSE_DMABUF_TOKEN_WRITE);
	CHECK_EQUAL(allowed("rules = ( { group = 2000; allow = \"write\"; }, "
			    "{ allow = \"read\"; } );", &user), FUSE_DMABUF_TOKEN_READ);
	CHECK_EQUAL(allowed("rules = ( { user = 1001; group = 5; allow = \"none\"; } );", &member),
		    TOKEN_BOTH);
}

static void patterns_of_paths(void)
{
	CHECK(policy_path_matches("/models", "/models/a/b"));
	CHECK(policy_path_matches("/models/*.safetensors", "/models/a.safetensors"));
	CHECK(!policy_path_matches("/models/*.safetensors", "/models/sub/a.safetensors"));
	CHECK(policy_path_matches("/*/private", "/u/private/x"));
	CHECK(!policy_path_matches("/models", "/models2/a"));
	CHECK(policy_path_matches("/?", "/.") && policy_path_matches("/*", "/.hidden"));
	CHECK(policy_path_matches("/", "/a") && policy_path_matches("/", "/a/b"));
	CHECK(policy_path_matches("/a/", "/a/b"));
	CHECK(policy_path_matches("//a///b//", "/a/b/c") && policy_path_matches("//", "/a"));
	CHECK(!policy_path_matches("//a//b", "/a"));
	CHECK(!policy_path_matches("/a/", "/a") && !policy_path_matches("/a/b", "/a"));
	CHECK(policy_path_matches("/*a*b", "/xaabxb") && !policy_path_matches("/*a*b", "/xaabx"));
	CHECK(policy_path_matches("/a*", "/a") && policy_path_matches("/**", "/a"));
	CHECK(!policy_path_matches("/a?", "/a"));
	CHECK(!policy_path_matches("/a?b", "/a/b") && !policy_path_matches("/a*b", "/a/b"));
	CHECK(policy_path_matches("/a[1]\\", "/a[1]\\") && !policy_path_matches("/a[1]", "/a1"));
}

/*
 * A path of 2000 names, and a pattern as long as a request, for which a backtracking matcher would
 * never end.
 */
static void patterns_that_take_long(void)
{
	char pattern[8192] = "", path[4096] = "";

	for (int i = 0; i < 2000; i++) {
		strcat(pattern, "/*");
		strcat(path, "/a");
	}
	CHECK(policy_path_matches(pattern, path));
	strcat(pattern, "b");
	CHECK(!policy_path_matches(pattern, path));
	strcpy(pattern, "/");
	memset(path + 1, 'a', 255);
	path[256] = '\0';
	for (int i = 0; i < 2000; i++)
		strcat(pattern, "*a");
	CHECK(!policy_path_matches(pattern, path));
	pattern[1 + 2 * 255] = '\0';
	CHECK(policy_path_matches(pattern, path));
	strcat(pattern, "*b");
	CHECK(!policy_path_matches(pattern, path));
}

static void path_is_where_the_file_is(void)
{
	char name[INODE_NAME_MAX], text[INODE_NAME_MAX + 64];

	snprintf(text, sizeof(text),
		 "rules = ( { path = [\"/nowhere\", \"%s\"]; allow = \"none\"; } );",
		 inode_name(file, name));
	CHECK_EQUAL(allowed(text, &user), 0);
	CHECK_EQUAL(allowed("rules = ( { path = \"/nowhere\"; allow = \"none\"; } );", &user),
		    TOKEN_BOTH);
}

/* A rule that forbids could be about this very file. */
static void file_whose_path_is_unknown_gets_nothing_where_there_are_rules(void)
{
	char name[INODE_NAME_MAX];
	int known = file->fd;

	/* The kernel shows the same path for a descriptor opened by a handle and not connected. */
	file->fd = open("/", O_PATH);
	CHECK(!*inode_name(file, name));
	CHECK_EQUAL(allowed("rules = ( { path = \"/nowhere\"; allow = \"none\"; } );", &user), 0);
	close(file->fd);
	file->fd = known;
}

static void rule_about_one_file(char *text, size_t size, const char *name, const char *allow)
{
	snprintf(text, size, "rules = ( { path = \"%s/%s\"; allow = \"%s\"; }, "
		 "{ path = \"/*\"; allow = \"write\"; } );",
		 test_directory, name, allow);
}

static void removed_file_is_where_it_was(void)
{
	struct inode *removed = node_lookup("removed");
	char name[INODE_NAME_MAX], text[256];

	rule_about_one_file(text, sizeof(text), "removed", "read");
	CHECK_EQUAL(allowed_on(removed, text, &user), FUSE_DMABUF_TOKEN_READ);
	node_remove("removed");
	CHECK(strstr(inode_name(removed, name), "removed (deleted)"));
	CHECK_EQUAL(allowed_on(removed, text, &user), FUSE_DMABUF_TOKEN_READ);
	CHECK(policy_file_name(removed, name) && !strstr(name, "(deleted)"));
	inode_forget(removed, 1);
}

static void removed_file_has_no_token_where_removal_revokes(void)
{
	const struct policy policy = { .deny_removed = true };
	struct inode *removed = node_lookup("removed");

	CHECK_EQUAL(policy_directions(&policy, &user, removed, TOKEN_BOTH), TOKEN_BOTH);
	node_remove("removed");
	CHECK_EQUAL(policy_directions(&policy, &user, removed, TOKEN_BOTH), 0);
	CHECK_EQUAL(policy_directions(&policy, &(struct owner){ 0 }, removed, TOKEN_BOTH), 0);
	inode_forget(removed, 1);
}

#define DEEP 17         /* directories, with names of 255 bytes: the path is longer than PATH_MAX */

static void fill_name(char name[256])
{
	memset(name, 'x', 255);
	name[255] = '\0';
}

static int enter_deep_directory(void)
{
	int fd = dup(node_root()->fd), parent;
	char name[256];

	fill_name(name);
	for (int i = 0; i < DEEP; i++) {
		parent = fd;
		CHECK(!mkdirat(parent, name, 0755));
		fd = openat(parent, name, O_PATH | O_DIRECTORY);
		CHECK(fd >= 0);
		close(parent);
	}
	return fd;
}

/* Closes the descriptor. */
static void remove_deep_directory(int fd)
{
	char name[256];
	int parent;

	fill_name(name);
	for (int i = 0; i < DEEP; i++) {
		parent = openat(fd, "..", O_PATH | O_DIRECTORY);
		close(fd);
		CHECK(!unlinkat(parent, name, AT_REMOVEDIR));
		fd = parent;
	}
	close(fd);
}

static void file_whose_path_is_not_known_gets_nothing_from_rules_about_paths(void)
{
	int directory = enter_deep_directory();
	int fd = openat(directory, "file", O_CREAT | O_WRONLY, 0666);
	char name[INODE_NAME_MAX];
	struct inode *deep;
	struct stat attr;

	CHECK(fd >= 0 && !fchmod(fd, 0666));
	close(fd);
	deep = inode_lookup(openat(directory, "file", O_PATH), &attr);
	CHECK(deep && !*inode_name(deep, name));
	CHECK(!policy_file_name(deep, name));
	CHECK_EQUAL(allowed_on(deep, "rules = ( { path = \"/nowhere\"; allow = \"none\"; } );",
			       &user), 0);
	CHECK_EQUAL(allowed_on(deep, "rules = ( { path = \"/nowhere\"; "
			       "allow = \"read-write\"; } );", &user), 0);
	CHECK_EQUAL(allowed_on(deep, "rules = ( { user = 1; path = \"/\"; allow = \"none\"; } );",
			       &user), TOKEN_BOTH);
	CHECK_EQUAL(allowed_on(deep, "rules = ( { allow = \"read\"; }, "
			       "{ path = \"/\"; allow = \"none\"; } );", &user),
		    FUSE_DMABUF_TOKEN_READ);
	inode_forget(deep, 1);
	CHECK(!unlinkat(directory, "file", 0));
	remove_deep_directory(directory);
}

static void permissions_count_whatever_the_policy_says(void)
{
	static const char all[] = "rules = ( { allow = \"read-write\"; } );";

	node_chmod(file, 0604);
	CHECK_EQUAL(allowed(all, &user), FUSE_DMABUF_TOKEN_READ);
	node_chmod(file, 0600);
	CHECK_EQUAL(allowed(all, &user), 0);
	CHECK_EQUAL(allowed(all, &(struct owner){ 0 }), TOKEN_BOTH);
	CHECK(!fchownat(file->fd, "", 0, 2000, AT_EMPTY_PATH));
	node_chmod(file, 0640);
	CHECK_EQUAL(allowed(all, &member), FUSE_DMABUF_TOKEN_READ);
	CHECK_EQUAL(allowed(all, &user), 0);
	CHECK(!fchownat(file->fd, "", 1000, 0, AT_EMPTY_PATH));
	CHECK_EQUAL(allowed(all, &user), TOKEN_BOTH);
	node_chmod(file, 0666);
	CHECK(geteuid() == 0 && !access(test_directory, W_OK));
}

static void first_quota_that_fits_counts(void)
{
	static const struct token_count none, full = { 2, 300 };
	struct policy *policy = read_text("quotas = ( { user = 1000; max_bytes = 300; }, "
					  "{ group = 2000; max_tokens = 2; } );");

	CHECK(policy);
	CHECK(!policy_limit(policy, &user, 300, &none, &none));
	CHECK(policy_limit(policy, &user, 301, &none, &none));
	CHECK(policy_limit(policy, &user, 1, &none, &full));
	CHECK(policy_limit(policy, &member, 1, &none, &full));
	CHECK(!policy_limit(policy, &(struct owner){ .uid = 5 }, 1, &none, &full));
	CHECK(policy_limit(policy, &(struct owner){ .uid = 5 }, 1, &(struct token_count){ 100, 0 },
			   &none));
	policy_free(policy);
}

static void mistakes_are_told_with_their_line(void)
{
	CHECK_MISTAKE("max_bytes = \"64G\"\nmax_bites = 5;\n", "2",
		      "unknown setting \"max_bites\"");
	CHECK_MISTAKE("\n\nrules = (\n  { allow = \"some\"; }\n);", "4", "allow must be");
	CHECK_MISTAKE("rules = ( { allow = \"read\";\n user = \"no such user\"; } );", "2",
		      "there is no user");
	CHECK_MISTAKE("rules = ( { allow = \"read\"; group = 1.5; } );", "1", "group must be");
	CHECK_MISTAKE("rules = ( { allow = \"read\"; path = \"models\"; } );", "1", "path must be");
	CHECK_MISTAKE("rules = ( { allow = \"read\"; path = (); } );", "1", "empty");
	CHECK_MISTAKE("rules = ( { path = \"/a\"; } );", "1", "have allow");
	CHECK_MISTAKE("rules = ( 5 );", "1", "a rule must be");
	CHECK_MISTAKE("rules = 5;", "1", "must be a list");
	CHECK_MISTAKE("rules = ( { allow = \"read\"; colour = 1; } );", "1",
		      "unknown setting \"colour\"");
	CHECK_MISTAKE("quotas = ( { allow = \"read\"; } );", "1", "unknown setting");
	CHECK_MISTAKE("max_tokens = -1;", "1", "must be a decimal number");
	CHECK_MISTAKE("max_tokens = \"-1\";", "1", "must be a decimal number");
	CHECK_MISTAKE("max_tokens = true;", "1", "must be a decimal number");
	/* libconfig takes these for 0 and 1000. */
	CHECK_MISTAKE("max_bytes = 0x1000000000;", "1", "must be a decimal number");
	CHECK_MISTAKE("rules = ( { allow = \"read\"; user = 0x1000003e8; } );", "1",
		      "user must be");
	CHECK_MISTAKE("rules = ( { allow = \"read\"; group = 0x1000003e8; } );", "1",
		      "group must be");
	CHECK_MISTAKE("\nmax_tokens = ;", "2", "syntax error");
	CHECK_MISTAKE("max_tokens = 1;\nmax_tokens = 2;", "2", "duplicate");
	CHECK_MISTAKE("@include \"/etc/passwd\"\n", "1", "@include is not possible");
}

static void what_is_no_file_is_told(void)
{
	char fifo[64];

	snprintf(fifo, sizeof(fifo), "/tmp/policy-%d", getpid());
	CHECK(!policy_file_read("/nonexistent/policy", &defaults));
	CHECK(!policy_file_read("/tmp", &defaults));
	CHECK(!policy_file_read("/dev/zero", &defaults));
	CHECK(!policy_file_read("/dev/null", &defaults));
	CHECK(!mkfifo(fifo, 0600) && !policy_file_read(fifo, &defaults) && !unlink(fifo));
}

int main(void)
{
	/* As in the server: a change of the user ids does not take capabilities away. */
	CHECK(!prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP));
	nodes_begin();
	file = node_lookup("file");
	RUN(what_is_not_set_is_as_in_the_mount_options);
	RUN(limits);
	RUN(first_rule_that_fits_decides);
	RUN(patterns_of_paths);
	RUN(patterns_that_take_long);
	RUN(path_is_where_the_file_is);
	RUN(file_whose_path_is_unknown_gets_nothing_where_there_are_rules);
	RUN(removed_file_is_where_it_was);
	RUN(removed_file_has_no_token_where_removal_revokes);
	RUN(file_whose_path_is_not_known_gets_nothing_from_rules_about_paths);
	RUN(permissions_count_whatever_the_policy_says);
	RUN(first_quota_that_fits_counts);
	RUN(mistakes_are_told_with_their_line);
	log_set_level(LOG_EMERG);
	RUN(what_is_no_file_is_told);
	inode_forget(file, 1);
	node_remove("file");
	nodes_end();
	return 0;
}
