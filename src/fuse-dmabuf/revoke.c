/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command "fuse-dmabuf revoke": asks a server to revoke tokens. */
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
	"usage: fuse-dmabuf revoke MOUNTPOINT --token ID | --path PATTERN | --uid USER | --all\n"
	"                          [--timeout SECONDS]\n"
	"\n"
	"Revokes tokens of a mount. When the command returns, no DMA of theirs is in flight.\n"
	"\n"
	"  --token ID      one token, by its number in \"fuse-dmabuf status\"\n"
	"  --path PATTERN  the tokens of files that match, or are below a directory that matches:\n"
	"                  /models, \"/*.tmp\"; paths are those of \"fuse-dmabuf status\", which\n"
	"                  begin at the mountpoint\n"
	"  --uid USER      the tokens of a user, by name or number\n"
	"  --all           all tokens\n"
	"  --timeout SECONDS\n"
	"                  wait no longer, and fail if DMA may still be in flight; the server\n"
	"                  revokes the tokens nevertheless\n"
	"  -h, --help      this text\n";

/* Seconds: one day. */
#define TIMEOUT_MAX 86400

/* Sets *uid from the name or the number of a user. Returns false if @text is neither. */
static bool parse_user(const char *text, uint64_t *uid)
{
	const struct passwd *user = getpwnam(text);

	if (user)
		*uid = user->pw_uid;
	return user || parse_number(text, UINT32_MAX - 1, uid);
}

/* Returns a request with the tokens that the option selects, or NULL after a message. */
static json_t *selection_request(int option, const char *text)
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
			complain("--path %s: give a pattern in UTF-8 that begins with /, "
				 "the root of the mount", text);
		return request;
	case 'u':
		if (parse_user(text, &number))
			return json_pack("{s:I}", "uid", (json_int_t)number);
		complain("--uid %s: there is no such user", text);
		return NULL;
	case 'a':
		return json_pack("{s:b}", "all", 1);
	default:
		complain("%s: unknown option, or its value is missing: "
			 "see fuse-dmabuf revoke --help", text);
		return NULL;
	}
}

/*
 * Returns the exit code: a failure, after a message, if --path has passed over tokens because the
 * server does not know the path of their file.
 */
static int check_unknown_paths(const json_t *answer)
{
	json_int_t unknown = json_integer_value(json_object_get(answer, "unknown"));

	if (!unknown)
		return 0;
	return complain("the path of %lld tokens is not known: "
			"revoke them by --token, --uid, --all or --path /", (long long)unknown);
}

static int revoke(const char *mountpoint, json_t *request, unsigned int timeout)
{
	json_t *answer;
	int code;

	json_object_set_new(request, "command", json_string("revoke"));
	/* The answer comes when the DMA that is in flight has ended. */
	answer = ask_server(mountpoint, request, timeout);
	if (!answer)
		return EXIT_FAILED;
	printf("%lld tokens revoked\n",
	       (long long)json_integer_value(json_object_get(answer, "revoked")));
	code = check_unknown_paths(answer);
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
	json_t *request;		/* NULL before an option has selected tokens */
	unsigned int selections;	/* options that select tokens; there must be one */
	unsigned int timeout;		/* seconds; 0: none */
};

/* Returns false after a message. */
static bool parse_option(int option, const char *text, struct arguments *arguments)
{
	if (option == 's')
		return parse_timeout(text, &arguments->timeout);
	json_decref(arguments->request);
	arguments->request = selection_request(option, text);
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
		if (!parse_option(option, option == '?' ? argv[optind - 1] : optarg, &arguments))
			return EXIT_BAD_INPUT;
	}
	if (argc - optind != 1 || arguments.selections != 1) {
		json_decref(arguments.request);
		complain("give one MOUNTPOINT and one of --token, --path, --uid and --all: "
			 "see fuse-dmabuf revoke --help");
		return EXIT_BAD_INPUT;
	}
	return revoke(argv[optind], arguments.request, arguments.timeout);
}
