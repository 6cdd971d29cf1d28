/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parses the command line and the mount options. */
#include <errno.h>
#include <fuse_opt.h>
#include <getopt.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "log/log.h"
#include "options.h"

/* Bytes are 4 TiB. No machine that works as it should comes near to either limit. */
#define DEFAULT_MAX_TOKENS (64u << 10)
#define DEFAULT_MAX_BYTES (4ull << 40)

static const char usage[] =
	"Usage: mount -t fuse-dmabuf SRC MNT [-o OPTION,...]\n"
	"       mount.fuse-dmabuf SRC MNT [-fnsv] [-t TYPE] [-o OPTION,...]\n"
	"\n"
	"Mounts the directory SRC on MNT. File data passes by the server; programs may\n"
	"register dma-bufs for files on MNT, and the server grants and counts them.\n"
	"\n"
	"  -f             stay in the foreground, messages to stderr\n"
	"  -s             ignore options that are not known\n"
	"  -n, -v, -t TYPE\n"
	"                 accepted, because mount(8) passes them, and ignored\n"
	"  -h, --help     this text\n"
	"  -V, --version  the version\n"
	"\n"
	"Options:\n"
	"  policy=FILE              who may have tokens: fuse-dmabuf-policy(5)\n"
	"  tokens=allow|deny        whether tokens are granted at all (default: allow)\n"
	"  max_bytes=SIZE           limit of all tokens together, with suffix K, M, G or T "
	"(default: 4T)\n"
	"  max_tokens=NUMBER        the same for their number (default: 65536)\n"
	"  user_max_bytes=SIZE      limit of each user (default: none)\n"
	"  user_max_tokens=NUMBER   the same for their number (default: none)\n"
	"  revoke_on_unlink         a removed file loses its tokens\n"
	"  control_group=GROUP      its members may ask for status and revoke, as root may\n"
	"  cache=auto|none|always   how long names and attributes may be remembered "
	"(default: auto, 1 s)\n"
	"  log=LEVEL                error, warning, info (default) or debug (each request)\n"
	"  ro, rw, nosuid, nodev, noexec, noatime, sync, dirsync and their opposites\n"
	"\n"
	"See mount.fuse-dmabuf(8).\n";

/* Options that libfuse hands on to the kernel. */
static const char *const kernel_options[] = {
	"ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "async", "sync", "dirsync",
	"noatime", "nodiratime", "norelatime", "nostrictatime", "symfollow", "nosymfollow",
};

/* Options for mount(8), systemd and fstab, and options that the server always follows. */
static const char *const ignored_options[] = {
	"defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "owner",
	"group", "relatime", "atime", "diratime", "allow_other", "default_permissions",
};

#define HAS(list, word) is_in(list, sizeof(list) / sizeof(list[0]), word)

static bool is_in(const char *const *list, size_t count, const char *word)
{
	for (size_t i = 0; i < count; i++) {
		if (!strcmp(list[i], word))
			return true;
	}
	return false;
}

/*
 * Returns the rest of @text after @name, or NULL if @text does not begin with @name. A hyphen in
 * @text stands for an underscore.
 */
static const char *skip_prefix(const char *text, const char *name)
{
	while (*name && (*text == *name || (*text == '-' && *name == '_'))) {
		text++;
		name++;
	}
	return *name ? NULL : text;
}

/* Returns the value of an option "NAME=VALUE", or NULL if the option is another one. */
static const char *value_of(const char *option, const char *name)
{
	const char *rest = skip_prefix(option, name);

	return rest && *rest == '=' ? rest + 1 : NULL;
}

static bool parse_tokens(struct options *options, const char *value)
{
	if (strcmp(value, "allow") && strcmp(value, "deny")) {
		log_error("tokens=%s: must be tokens=allow or tokens=deny", value);
		return false;
	}
	options->policy.is_denied = !strcmp(value, "deny");
	return true;
}

static bool parse_control_group(struct options *options, const char *value)
{
	const struct group *group = getgrnam(value);

	if (group) {
		options->control_group = group->gr_gid;
		return true;
	}
	log_error("control_group=%s: there is no such group", value);
	return false;
}

static bool parse_cache(struct options *options, const char *value)
{
	static const char *const names[] = {
		[CACHE_AUTO] = "auto", [CACHE_NONE] = "none", [CACHE_ALWAYS] = "always",
	};

	for (unsigned int i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(value, names[i])) {
			options->cache = i;
			return true;
		}
	}
	log_error("cache=%s: must be cache=auto, cache=none or cache=always", value);
	return false;
}

static bool parse_policy(struct options *options, const char *value)
{
	options->policy.file = value;
	if (*value == '/')
		return true;
	log_error("policy=%s: must be an absolute path, because it is read again later", value);
	return false;
}

static bool parse_log(struct options *options, const char *value)
{
	options->log_level = log_level_from_name(value);
	if (options->log_level >= 0)
		return true;
	log_error("log=%s: must be log=error, log=warning, log=info or log=debug", value);
	return false;
}

static bool parse_other(struct options *options, const char *option)
{
	if (HAS(kernel_options, option)) {
		if (!strcmp(option, "suid") || !strcmp(option, "nosuid"))
			options->suid = !strcmp(option, "suid");
		if (!fuse_opt_add_opt(&options->mount_options, option))
			return true;
		log_error("out of memory");
		return false;
	}
	if (HAS(ignored_options, option) || !strncmp(option, "x-", 2) ||
	    value_of(option, "comment") || options->sloppy)
		return true;
	log_error("unknown option \"%s\" (mount.fuse-dmabuf --help lists them)", option);
	return false;
}

/* Sets *known to whether the option is a limit. Returns false if its value is wrong. */
static bool parse_limit(struct options *options, const char *option, bool *known)
{
	const struct {
		const char *name;
		uint64_t *limit;
		const char *unit;
	} limits[] = {
		{ "max_bytes", &options->policy.limit.bytes, "bytes" },
		{ "max_tokens", &options->policy.limit.tokens, "tokens" },
		{ "user_max_bytes", &options->policy.user_limit.bytes, "bytes" },
		{ "user_max_tokens", &options->policy.user_limit.tokens, "tokens" },
	};
	const char *value;

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		value = value_of(option, limits[i].name);
		if (!value)
			continue;
		*known = true;
		if (parse_size(value, limits[i].limit))
			return true;
		log_error("%s=%s: must be a number of %s, with K, M, G or T after it if you like",
			  limits[i].name, value, limits[i].unit);
		return false;
	}
	*known = false;
	return true;
}

static bool parse_one(struct options *options, const char *option)
{
	static const struct {
		const char *name;
		bool (*parse)(struct options *, const char *);
	} parsers[] = {
		{ "cache", parse_cache },
		{ "control_group", parse_control_group },
		{ "log", parse_log },
		{ "policy", parse_policy },
		{ "tokens", parse_tokens },
	};
	const char *value;
	bool known, valid = parse_limit(options, option, &known);

	if (known)
		return valid;
	for (size_t i = 0; i < sizeof(parsers) / sizeof(parsers[0]); i++) {
		value = value_of(option, parsers[i].name);
		if (value)
			return parsers[i].parse(options, value);
	}
	value = skip_prefix(option, "revoke_on_unlink");
	if (value && !*value)
		return options->policy.revoke_on_unlink = true;
	return parse_other(options, option);
}

static bool parse_list(struct options *options, char *list)
{
	char *option;

	while ((option = strsep(&list, ","))) {
		if (*option && !parse_one(options, option))
			return false;
	}
	return true;
}

/* Returns true if @word is in @list, whose words are separated by commas. */
static bool has_word(const char *list, const char *word)
{
	size_t length = strlen(word);

	for (; *list; list += strspn(list, ",")) {
		if (strcspn(list, ",") == length && !strncmp(list, word, length))
			return true;
		list += strcspn(list, ",");
	}
	return false;
}

/* Parses the lists of -o. -s and the mountpoint must be known before: both may come after -o. */
static enum options_result parse_lists(struct options *options, char **lists, int count)
{
	/*
	 * "remount" is looked for first: mount(8) adds the options of the mount table, among them
	 * words of the kernel, which would be reported as unknown options instead.
	 */
	for (int i = 0; i < count; i++) {
		if (has_word(lists[i], "remount")) {
			log_error("remount is not possible: umount %s and mount it again "
				  "with the new options", options->mountpoint);
			return OPTIONS_WRONG;
		}
	}
	for (int i = 0; i < count; i++) {
		if (!parse_list(options, lists[i]))
			return OPTIONS_WRONG;
	}
	return OPTIONS_MOUNT;
}

/* Collects the arguments of -o in @lists, which has room for @argc. */
static enum options_result parse_words(struct options *options, int argc, char **argv, char **lists)
{
	static const struct option words[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	int count = 0, c;

	while ((c = getopt_long(argc, argv, "fhno:st:vV", words, NULL)) != -1) {
		switch (c) {
		case 'f':
			options->foreground = true;
			break;
		case 's':
			options->sloppy = true;
			break;
		case 'n':
		case 't':
		case 'v':
			break;
		case 'o':
			lists[count++] = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return OPTIONS_DONE;
		case 'V':
			puts("mount.fuse-dmabuf " FUSE_DMABUF_VERSION);
			return OPTIONS_DONE;
		default:
			return OPTIONS_WRONG;
		}
	}
	if (argc - optind != 2) {
		log_error("needs a source directory and a mountpoint: "
			  "mount.fuse-dmabuf SRC MNT [-o OPTION,...]");
		return OPTIONS_WRONG;
	}
	options->source = argv[optind];
	options->mountpoint = argv[optind + 1];
	return parse_lists(options, lists, count);
}

enum options_result options_parse(struct options *options, int argc, char **argv)
{
	char **lists = calloc((size_t)argc + 1, sizeof(*lists));
	enum options_result result;

	*options = (struct options){
		.policy = {
			.limit = { .tokens = DEFAULT_MAX_TOKENS, .bytes = DEFAULT_MAX_BYTES },
			.user_limit = { UINT64_MAX, UINT64_MAX },
		},
		.log_level = LOG_INFO,
	};
	if (!lists) {
		log_error("out of memory");
		return OPTIONS_WRONG;
	}
	/* 0 makes glibc's getopt_long() start anew, also after another command line (of a test). */
	optind = 0;
	result = parse_words(options, argc, argv, lists);
	free(lists);
	return result;
}

void options_free(struct options *options)
{
	free(options->mount_options);
}
