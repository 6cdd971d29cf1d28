/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "books-copy.h"
#include "broker.h"
#include "control-answer.h"
#include "inode.h"
#include "kernel-tokens.h"
#include "log.h"
#include "privileges.h"

static struct {
	const char *source, *mountpoint;
} served;

void control_answer_begin(const char *source, const char *mountpoint)
{
	served.source = source;
	served.mountpoint = mountpoint;
}

/* One line for free(); takes over the object. */
static char *as_line(json_t *object)
{
	char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	char *line = text ? realloc(text, strlen(text) + 2) : NULL;

	json_decref(object);
	if (line)
		strcat(line, "\n");
	else
		free(text);
	return line;
}

/* Names may be any bytes, JSON is UTF-8. */
static json_t *name_as_json(const char *name)
{
	json_t *string = json_string(name);
	char *copy;

	if (string)
		return string;
	copy = strdup(name);
	for (char *c = copy; c && *c; c++) {
		if (*c & 0x80)
			*c = '?';
	}
	string = copy ? json_string(copy) : NULL;
	free(copy);
	return string;
}

char *control_answer_error(const char *reason)
{
	return as_line(json_pack("{s:b, s:o}", "ok", 0, "error", name_as_json(reason)));
}

/* ---------------------------------------------------------------- status */

static double age_of(const struct token *token)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (double)(now.tv_sec - token->granted.tv_sec) +
	       (double)(now.tv_nsec - token->granted.tv_nsec) / 1e9;
}

static const char *direction_name(uint32_t direction)
{
	if (direction == TOKEN_BOTH)
		return "read-write";
	return direction == FUSE_DMABUF_TOKEN_READ ? "read" : "write";
}

/* The kernel's counters; what it does not tell is null. */
static void add_counters(json_t *object, const struct kernel_counters *counters)
{
	json_t *more = counters ?
		json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "requests", (json_int_t)counters->requests,
			  "read_bytes", (json_int_t)counters->read_bytes,
			  "write_bytes", (json_int_t)counters->write_bytes,
			  "peer_bytes", (json_int_t)counters->peer_bytes,
			  "maps", (json_int_t)counters->maps,
			  "invalidations", (json_int_t)counters->invalidations) :
		json_pack("{s:n, s:n, s:n, s:n, s:n, s:n}", "requests", "read_bytes", "write_bytes", "peer_bytes",
			  "maps", "invalidations");

	json_object_update_new(object, more);
}

static json_t *token_as_json(const struct token *token, const struct kernel_statistics *statistics)
{
	const struct token_request *request = &token->request;
	char name[INODE_NAME_MAX];
	json_t *object = json_pack("{s:I, s:o, s:I, s:i, s:I, s:s, s:s, s:f, s:b}",
		"id", (json_int_t)request->id,
		"path", name_as_json(inode_name(request->inode, name)),
		"uid", (json_int_t)request->owner.uid,
		"pid", (int)request->pid,
		"bytes", (json_int_t)request->size,
		"exporter", request->exporter,
		"direction", direction_name(token->direction),
		"age", age_of(token),
		"revoked", token->revoked);

	if (object)
		add_counters(object, kernel_statistics_find(statistics, request->id));
	return object;
}

static json_t *count_as_json(const struct token_count *count)
{
	return json_pack("{s:I, s:I}", "tokens", (json_int_t)count->tokens, "bytes", (json_int_t)count->bytes);
}

/* A limit that is none is null. */
static json_t *limit_as_json(uint64_t limit)
{
	return limit > INT64_MAX ? json_null() : json_integer((json_int_t)limit);
}

static json_t *limits_as_json(const struct policy *policy)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:b}",
		"max_tokens", limit_as_json(policy->all.tokens), "max_bytes", limit_as_json(policy->all.bytes),
		"user_max_tokens", limit_as_json(policy->user.tokens),
		"user_max_bytes", limit_as_json(policy->user.bytes), "deny", policy->deny);
}

static json_t *users_as_json(const struct books_copy *books)
{
	json_t *users = json_array();

	for (size_t i = 0; i < books->user_count; i++)
		json_array_append_new(users, json_pack("{s:I, s:I, s:I}", "uid", (json_int_t)books->users[i].uid,
			"tokens", (json_int_t)books->users[i].count.tokens,
			"bytes", (json_int_t)books->users[i].count.bytes));
	return users;
}

static json_t *tokens_as_json(const struct books_copy *books, const struct kernel_statistics *statistics)
{
	json_t *tokens = json_array();

	for (size_t i = 0; i < books->token_count; i++)
		json_array_append_new(tokens, token_as_json(&books->tokens[i], statistics));
	return tokens;
}

static json_t *books_as_json(const struct books_copy *books, const struct policy *policy,
			     const struct kernel_statistics *statistics)
{
	return json_pack("{s:b, s:b, s:s, s:i, s:o, s:o, s:b, s:o, s:o, s:o, s:o}",
		"ok", 1,
		"available", kernel_has_tokens(),
		"version", FUSE_DMABUF_VERSION,
		"pid", (int)getpid(),
		"source", name_as_json(served.source),
		"mountpoint", name_as_json(served.mountpoint),
		"counters", statistics->known,
		"all", count_as_json(&books->all),
		"limits", limits_as_json(policy),
		"users", users_as_json(books),
		"tokens", tokens_as_json(books, statistics));
}

/* A grant does not wait until all paths of all tokens have been looked up. */
static char *answer_status(void)
{
	struct kernel_statistics statistics;
	struct books_copy books;
	struct policy limits;
	json_t *status;
	bool copied;

	kernel_statistics_read(&statistics);
	books_lock();
	/* Its rules and quotas are not to be looked at without the lock. */
	limits = *broker_policy();
	copied = books_copy_make(&books);
	books_unlock();
	status = copied ? books_as_json(&books, &limits, &statistics) : NULL;
	books_copy_free(&books);
	kernel_statistics_free(&statistics);
	return as_line(status);
}

/* ---------------------------------------------------------------- revoke */

/* Which tokens, and the words for the log. */
struct selection {
	enum { BY_TOKEN, BY_PATH, BY_UID, BY_ALL } by;
	uint64_t token;
	const char *path;
	uid_t uid;
	char reason[64];
	uint64_t unknown;       /* tokens that may be below the path or not */
};

/* Each look at the books counts anew. */
static void forget_unknown(void *data)
{
	struct selection *selection = data;

	selection->unknown = 0;
}

/* The path of a file can be too long to be known, but it is below the root. */
static bool is_below(const struct inode *inode, struct selection *selection)
{
	char name[INODE_NAME_MAX];

	if (!selection->path[strspn(selection->path, "/")])
		return true;
	if (policy_file_name(inode, name))
		return policy_path_fits(selection->path, name);
	selection->unknown++;
	return false;
}

static const char *is_selected(const struct token *token, void *data)
{
	struct selection *selection = data;
	bool selected = true;

	switch (selection->by) {
	case BY_TOKEN:
		selected = token->request.id == selection->token;
		break;
	case BY_PATH:
		selected = is_below(token->request.inode, selection);
		break;
	case BY_UID:
		selected = token->request.owner.uid == selection->uid;
		break;
	case BY_ALL:
		break;
	}
	return selected ? selection->reason : NULL;
}

static bool parse_selection(const json_t *request, struct selection *selection)
{
	const json_t *token = json_object_get(request, "token"), *path = json_object_get(request, "path");
	const json_t *uid = json_object_get(request, "uid"), *all = json_object_get(request, "all");

	/* "command" and just one of these */
	if (json_object_size(request) != 2)
		return false;
	selection->by = token ? BY_TOKEN : path ? BY_PATH : uid ? BY_UID : BY_ALL;
	selection->token = (uint64_t)json_integer_value(token);
	selection->path = json_string_value(path);
	selection->uid = (uid_t)json_integer_value(uid);
	return (json_is_integer(token) && json_integer_value(token) >= 0) ||
	       (selection->path && *selection->path == '/') ||
	       (json_is_integer(uid) && json_integer_value(uid) >= 0 && json_integer_value(uid) < UINT32_MAX) ||
	       json_is_true(all);
}

static bool has_token(uint64_t id)
{
	bool found;

	books_lock();
	found = books_find(id);
	books_unlock();
	return found;
}

static const char *failure_of(const struct revocation *result)
{
	return result->error == ENOTTY ? "this kernel cannot revoke tokens" : strerror(result->error);
}

static char *answer_revoked(const struct revocation *result, const struct selection *selection)
{
	json_t *answer = json_pack("{s:b, s:I}", "ok", !result->failed, "revoked", (json_int_t)result->revoked);

	if (selection->unknown)
		json_object_set_new(answer, "unknown", json_integer((json_int_t)selection->unknown));
	if (result->failed) {
		json_object_set_new(answer, "failed", json_integer((json_int_t)result->failed));
		json_object_set_new(answer, "error", json_string(failure_of(result)));
	}
	return as_line(answer);
}

static char *answer_revoke(const json_t *request, const struct ucred *peer)
{
	struct selection selection = { 0 };
	struct revocation result;

	if (!parse_selection(request, &selection))
		return control_answer_error("revoke needs one of token (a number), path (a pattern that begins with /), "
					    "uid (a number), or all (true)");
	if (selection.by == BY_TOKEN && !has_token(selection.token))
		return control_answer_error("there is no such token");
	snprintf(selection.reason, sizeof(selection.reason), "asked for by uid %u pid %d", peer->uid, peer->pid);
	result = revoke_tokens(&(struct revocation_wish){
		.begin = forget_unknown, .reason = is_selected, .data = &selection,
		.all = selection.by == BY_ALL });
	log_info("%llu tokens revoked, %s", (unsigned long long)result.revoked, selection.reason);
	return answer_revoked(&result, &selection);
}

/* ---------------------------------------------------------------- requests */

static char *answer_request(const json_t *request, const struct ucred *peer)
{
	const char *command = json_string_value(json_object_get(request, "command"));

	if (command && !strcmp(command, "status") && json_object_size(request) == 1)
		return answer_status();
	if (command && !strcmp(command, "revoke"))
		return answer_revoke(request, peer);
	/* Who waits for a long revocation sees that the server lives. */
	if (command && !strcmp(command, "ping") && json_object_size(request) == 1)
		return as_line(json_pack("{s:b}", "ok", 1));
	return control_answer_error("command must be \"status\", \"revoke\" or \"ping\"");
}

char *control_answer(const char *text, size_t length, const struct ucred *peer)
{
	json_t *request = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
	char *answer;

	if (json_is_object(request)) {
		/* Letting go of a node may close its backing file, which needs them. */
		privileges_resume();
		answer = answer_request(request, peer);
		privileges_suspend();
	} else {
		answer = control_answer_error("the request must be a JSON object in one line");
	}
	json_decref(request);
	return answer;
}
