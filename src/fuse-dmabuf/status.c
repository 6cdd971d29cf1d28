/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command "fuse-dmabuf status": lists the tokens of mounts. */
#include <getopt.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "complain.h"
#include "control.h"
#include "exit-code.h"
#include "json-option.h"
#include "status.h"
#include "table.h"

static const char usage[] =
	"usage: fuse-dmabuf status [MOUNTPOINT] [--json]\n"
	"\n"
	"Lists the tokens of a mount, or of all mounts.\n"
	"\n"
	"  --json      print JSON, with more details\n"
	"  -h, --help  this text\n";

/* Seconds. A server that is not stopped has its lists ready sooner. */
#define ANSWER_LIMIT 10

/* Returns a member's string, or "-" if it has none. */
static const char *get_string(const json_t *object, const char *name)
{
	const char *value = json_string_value(json_object_get(object, name));

	return value ? value : "-";
}

static uint64_t get_number(const json_t *object, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(object, name));
}

/* Returns the text of a counter, or "-" if the server cannot read it from the kernel. */
static const char *counter_text(const json_t *token, const char *name, bool bytes, char text[32])
{
	if (!json_is_integer(json_object_get(token, name)))
		return "-";
	if (bytes)
		return size_text(get_number(token, name), text);
	snprintf(text, 32, "%" PRIu64, get_number(token, name));
	return text;
}

static const char *user_text(const json_t *token, char text[32])
{
	const struct passwd *user = getpwuid((uid_t)get_number(token, "uid"));

	snprintf(text, 32, "%" PRIu64, get_number(token, "uid"));
	return user ? user->pw_name : text;
}

static void print_token(const json_t *token)
{
	char user[32], size[32], requests[32], read[32], written[32], peer[32];

	printf("%6" PRIu64 " %-8s %7" PRIu64 " %8s %-10s %-13s %7.0fs %8s %8s %8s %8s %-7s ",
	       get_number(token, "id"), user_text(token, user), get_number(token, "pid"),
	       size_text(get_number(token, "bytes"), size), get_string(token, "direction"),
	       get_string(token, "exporter"), json_number_value(json_object_get(token, "age")),
	       counter_text(token, "requests", false, requests),
	       counter_text(token, "read_bytes", true, read),
	       counter_text(token, "write_bytes", true, written),
	       counter_text(token, "peer_bytes", true, peer),
	       json_is_true(json_object_get(token, "revoked")) ? "revoked" : "live");
	print_last_cell(get_string(token, "path"));
}

static void print_mount(const json_t *mount)
{
	const json_t *all = json_object_get(mount, "all");
	const json_t *tokens = json_object_get(mount, "tokens");
	const json_t *limits = json_object_get(mount, "limits");
	char bytes[32], limit[32], max[32];
	const json_t *token;
	size_t i;

	printf("%s: %" PRIu64 " tokens of %s; at most %s of %s", get_string(mount, "mountpoint"),
	       get_number(all, "tokens"), size_text(get_number(all, "bytes"), bytes),
	       counter_text(limits, "max_tokens", false, max),
	       counter_text(limits, "max_bytes", true, limit));
	printf("; server %" PRIu64 " of %s%s\n", get_number(mount, "pid"),
	       get_string(mount, "source"),
	       json_is_false(json_object_get(mount, "available")) ?
	       "; this kernel has no tokens" : "");
	if (json_array_size(tokens))
		printf("%6s %-8s %7s %8s %-10s %-13s %8s %8s %8s %8s %8s %-7s %s\n", "ID", "USER",
		       "PID", "SIZE", "DIRECTION", "EXPORTER", "AGE", "REQUESTS", "READ",
		       "WRITTEN", "PEER", "STATE", "PATH");
	json_array_foreach((json_t *)tokens, i, token)
		print_token(token);
}

static json_t *status_request(void)
{
	return json_pack("{s:s}", "command", "status");
}

/*
 * Asks the servers of all mounts. Returns an array of their answers; servers that end meanwhile are
 * left out. If another answer is missing, sets *failed after a message, and returns NULL if there
 * is no answer at all.
 */
static json_t *ask_all(bool *failed)
{
	unsigned int *numbers = list_servers();
	json_t *mounts = json_array(), *answer;
	bool gone;

	*failed = !numbers;
	for (size_t i = 0; numbers && numbers[i]; i++) {
		answer = ask_server_number(numbers[i], status_request(), ANSWER_LIMIT, &gone);
		*failed |= !answer && !gone;
		if (answer)
			json_array_append_new(mounts, answer);
	}
	free(numbers);
	if (!*failed || json_array_size(mounts))
		return mounts;
	json_decref(mounts);
	return NULL;
}

/* Asks the server of one mount, or all if @mountpoint is NULL. Returns as ask_all() does. */
static json_t *ask_servers(const char *mountpoint, bool *failed)
{
	json_t *answer;

	if (!mountpoint)
		return ask_all(failed);
	answer = ask_server(mountpoint, status_request(), ANSWER_LIMIT);
	*failed = !answer;
	return answer ? json_pack("[o]", answer) : NULL;
}

static void print_all(const json_t *mounts)
{
	const json_t *mount;
	size_t i;

	if (!json_array_size(mounts))
		puts("no mounts of fuse-dmabuf");
	json_array_foreach((json_t *)mounts, i, mount)
		print_mount(mount);
}

static int print_status(const char *mountpoint, bool as_json)
{
	bool failed;
	json_t *mounts = ask_servers(mountpoint, &failed), *answer;
	const json_t *mount;
	size_t i;

	if (!mounts)
		return EXIT_FAILED;
	json_array_foreach(mounts, i, mount)
		json_object_del((json_t *)mount, "ok");
	if (as_json) {
		answer = json_pack("{s:O}", "mounts", mounts);
		json_dumpf(answer, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
		putchar('\n');
		json_decref(answer);
	} else {
		print_all(mounts);
	}
	json_decref(mounts);
	if (fflush(stdout) || ferror(stdout))
		return complain("the status cannot be written");
	return failed ? EXIT_FAILED : 0;
}

int status_command(int argc, char **argv)
{
	bool as_json = false;
	int code;

	if (!parse_json_option(argc, argv, "status", usage, &as_json, &code))
		return code;
	if (argc - optind > 1) {
		complain("give one MOUNTPOINT, or none: see fuse-dmabuf status --help");
		return EXIT_BAD_INPUT;
	}
	return print_status(argv[optind], as_json);
}
