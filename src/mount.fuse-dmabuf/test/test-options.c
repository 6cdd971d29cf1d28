/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests the parser of the command line and of the mount options. */
#include <string.h>

#include "check.h"
#include "log/log.h"
#include "options.h"

/* Parses "mount.fuse-dmabuf src mnt WORD...". */
#define PARSE(options, ...) \
	parse(options, (char *[]){ "mount.fuse-dmabuf", "src", "mnt", __VA_ARGS__, NULL })

static enum options_result parse(struct options *options, char **words)
{
	static char copies[16][64];
	char *argv[17] = { NULL };
	int argc;

	for (argc = 0; words[argc]; argc++)
		argv[argc] = strcpy(copies[argc], words[argc]);
	return options_parse(options, argc, argv);
}

static void defaults(void)
{
	struct options options;

	CHECK(PARSE(&options, NULL) == OPTIONS_MOUNT);
	CHECK(!strcmp(options.source, "src") && !strcmp(options.mountpoint, "mnt"));
	CHECK(!options.foreground && !options.policy.is_denied);
	CHECK(options.policy.limit.bytes == 4ull << 40 && options.policy.limit.tokens == 65536);
	CHECK(!options.mount_options && options.log_level == LOG_INFO);
}

static void words_of_mount_are_understood(void)
{
	struct options options;

	CHECK(PARSE(&options, "-n", "-v", "-s", "-o",
		    "rw,noatime,user,x-systemd.automount,_netdev") == OPTIONS_MOUNT);
	CHECK(!strcmp(options.mount_options, "rw,noatime"));
	options_free(&options);
	CHECK(PARSE(&options, "-fsnv", "-o", "ro", "-o", "nosuid") == OPTIONS_MOUNT);
	CHECK(options.foreground && !strcmp(options.mount_options, "ro,nosuid"));
	options_free(&options);
}

static void type_is_taken_and_its_value_is_no_directory(void)
{
	struct options options;

	CHECK(PARSE(&options, "-t", "fuse.fuse-dmabuf") == OPTIONS_MOUNT);
	CHECK(PARSE(&options, "-tfuse-dmabuf", "-o", "ro") == OPTIONS_MOUNT);
	CHECK(!strcmp(options.source, "src") && !strcmp(options.mountpoint, "mnt"));
	CHECK(!strcmp(options.mount_options, "ro"));
	options_free(&options);
	CHECK(PARSE(&options, "-nt", "fuse-dmabuf", "-f") == OPTIONS_MOUNT && options.foreground);
	CHECK(PARSE(&options, "-t") == OPTIONS_WRONG);
	CHECK(PARSE(&options, "-t", "fuse-dmabuf", "third") == OPTIONS_WRONG);
}

static void own_options(void)
{
	struct options options;

	CHECK(PARSE(&options, "-o", "tokens=deny,max_bytes=64G,log=debug") == OPTIONS_MOUNT);
	CHECK(options.policy.is_denied && options.policy.limit.bytes == 64ull << 30);
	CHECK(options.log_level == LOG_DEBUG);
	CHECK(PARSE(&options, "-o", "tokens=deny", "-o", "tokens=allow,,") == OPTIONS_MOUNT);
	CHECK(!options.policy.is_denied);
}

static void limits(void)
{
	struct options options;

	CHECK(PARSE(&options, "-o",
		    "max_tokens=10,user_max_bytes=1G,user_max_tokens=1K") == OPTIONS_MOUNT);
	CHECK(options.policy.limit.tokens == 10 && options.policy.limit.bytes == 4ull << 40);
	CHECK(options.policy.user_limit.bytes == 1 << 30);
	CHECK(options.policy.user_limit.tokens == 1024);
	CHECK(PARSE(&options, NULL) == OPTIONS_MOUNT);
	CHECK(options.policy.user_limit.bytes == UINT64_MAX);
	CHECK(options.policy.user_limit.tokens == UINT64_MAX);
}

static void hyphens_may_stand_for_underscores(void)
{
	struct options options;

	CHECK(PARSE(&options, "-o",
		    "revoke-on-unlink,user-max-tokens=3,control-group=root") == OPTIONS_MOUNT);
	CHECK(options.policy.revoke_on_unlink && options.policy.user_limit.tokens == 3);
	CHECK(options.control_group == 0);
	CHECK(PARSE(&options, "-o", "revoke_on_unlink") == OPTIONS_MOUNT);
	CHECK(options.policy.revoke_on_unlink);
}

static void policy_and_cache(void)
{
	struct options options;

	CHECK(PARSE(&options, "-o", "policy=/etc/models.conf,cache=none") == OPTIONS_MOUNT);
	CHECK(!strcmp(options.policy.file, "/etc/models.conf") && options.cache == CACHE_NONE);
	CHECK(PARSE(&options, "-o", "cache=always") == OPTIONS_MOUNT);
	CHECK(options.cache == CACHE_ALWAYS);
}

static void sloppy_may_stand_anywhere(void)
{
	struct options options;

	CHECK(PARSE(&options, "-o", "unknown") == OPTIONS_WRONG);
	CHECK(PARSE(&options, "-o", "unknown", "-s") == OPTIONS_MOUNT);
	CHECK(PARSE(&options, "-s", "-o", "tokens=maybe") == OPTIONS_WRONG);
}

static void wrong_words_are_refused(void)
{
	static char *const wrong[] = {
		"tokens", "tokens=", "tokensx=allow", "max_bytes=", "max_bytes=-1", "log=",
		"remount", "fsname=x", "policy=", "policy=relative", "cache=", "cache=some",
		"control_group=no such group", "max_tokens=x", "revoke_on_unlink=",
		"revoke_on_unlinks", "user_max_bytes", "subtype=x", "auto_unmount", "allow_root",
		"fd=3", "max_read=1",
	};
	struct options options;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		CHECK(PARSE(&options, "-o", wrong[i]) == OPTIONS_WRONG);
	CHECK(PARSE(&options, "third") == OPTIONS_WRONG);
}

int main(void)
{
	log_set_level(LOG_EMERG);
	RUN(defaults);
	RUN(words_of_mount_are_understood);
	RUN(type_is_taken_and_its_value_is_no_directory);
	RUN(own_options);
	RUN(limits);
	RUN(hyphens_may_stand_for_underscores);
	RUN(policy_and_cache);
	RUN(sloppy_may_stand_anywhere);
	RUN(wrong_words_are_refused);
	return 0;
}
