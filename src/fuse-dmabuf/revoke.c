/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fuse-dmabuf revoke: takes tokens back. */
#include <getopt.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/text.h"
#include "complain.h"
#include "control.h"
#include "exit-code.h"
#include "revoke.h"

static const char usage[] =
	"usage: fuse-dmabuf revoke MOUNTPOINT --token ID | --path PATTERN | --uid USER | --all [--timeout SECONDS]\n"
	"\n"
	"Ends tokens of a mount. When it returns, no DMA of them is in flight.\n"
	"\n"
	"  --token ID      one token, by its number in \"fuse-dmabuf status\"\n"
	"  --path PATTERN  those of files that fit, or are below a directory that fits: /models, \"/*.tmp\";\n"
	"                  paths are those of \"fuse-dmabuf status\", which begin at the mountpoint\n"
	"  --uid USER      those of a user, by name or number\n"
	"  --all           all of them\n"
	"  --timeout SECONDS\n"
	"                  do not wait longer, and fail if DMA may still be in flight then; it is revoked all the same\n"
	"  -h, --help      this text\n";

/* Seconds. A day. */
#define TIMEOUT_MAX 86400

static bool parse_user(const char *text, uint64_t *uid)
{
	const struct passwd *user = getpwnam(text);

	if (user)
		*uid = user->pw_uid;
	return user || parse_number(text, UINT32_MAX - 1, uid);
}

/* What is to be revoked; NULL after a message. */
static json_t *selection(int option, const char *text)
{
	json_t *request;
	uint64_t number;

	switch (option) {
	case 't':
		if (parse_number(text, INT64_MAX, &number))
			return json_pack("{s:I}", "token", (json_int_t)number);
		complain("--token %s: give the number of a token", text);
		return NULL;
	case 'p':
		request = *text == '/' ? json_pack("{s:s}", "path", text) : NULL;
		if (!request)
			complain("--path %s: give a pattern in UTF-8 that begins with /, the root of the mount", text);
		return request;
	case 'u':
		if (parse_user(text, &number))
			return json_pack("{s:I}", "uid", (json_int_t)number);
		complain("--uid %s: there is no such user", text);
		return NULL;
	case 'a':
		return json_pack("{s:b}", "all", 1);
	default:
		complain("%s: unknown option, or its value is missing: see fuse-dmabuf revoke --help", text);
		return NULL;
	}
}

/* Those that --path has passed over. */
static int check_unknown(const json_t *answer)
{
	json_int_t unknown = json_integer_value(json_object_get(answer, "unknown"));

	return unknown ? complain("of %lld tokens the path is not known: revoke them by --token, --uid, --all or "
				  "--path /", (long long)unknown) : 0;
}

static int revoke(const char *mountpoint, json_t *request, unsigned int timeout)
{
	json_t *answer;
	int code;

	json_object_set_new(request, "command", json_string("revoke"));
	/* It takes as long as the DMA that is in flight. */
	answer = ask_server(mountpoint, request, timeout);
	if (!answer)
		return EXIT_FAILED;
	printf("%lld tokens revoked\n", (long long)json_integer_value(json_object_get(answer, "revoked")));
	code = check_unknown(answer);
	json_decref(answer);
	return code;
}

static bool parse_timeout(const char *text, unsigned int *timeout)
{
	uint64_t seconds;

	if (!parse_number(text, TIMEOUT_MAX, &seconds) || !seconds) {
		complain("--timeout %s: give seconds from 1 to %d", text, TIMEOUT_MAX);
		return false;
	}
	*timeout = (unsigned int)seconds;
	return true;
}

struct arguments {
	json_t *request;
	unsigned int selections, timeout;
};

/* False after a message. */
static bool take_option(int option, const char *text, struct arguments *arguments)
{
	if (option == 's')
		return parse_timeout(text, &arguments->timeout);
	json_decref(arguments->request);
	arguments->request = selection(option, text);
	arguments->selections++;
	return arguments->request;
}

int revoke_command(int argc, char **argv)
{
	static const struct option options[] = {
		{ "token", required_argument, NULL, 't' },
		{ "path", required_argument, NULL, 'p' },
		{ "uid", required_argument, NULL, 'u' },
		{ "all", no_argument, NULL, 'a' },
		{ "timeout", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct arguments arguments = { 0 };
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (option == 'h')
			return fputs(usage, stdout) < 0 ? EXIT_FAILED : 0;
		if (!take_option(option, option == '?' ? argv[optind - 1] : optarg, &arguments))
			return EXIT_BAD_INPUT;
	}
	if (argc - optind != 1 || arguments.selections != 1) {
		json_decref(arguments.request);
		complain("give one MOUNTPOINT and one of --token, --path, --uid and --all: see fuse-dmabuf revoke --help");
		return EXIT_BAD_INPUT;
	}
	return revoke(argv[optind], arguments.request, arguments.timeout);
}
