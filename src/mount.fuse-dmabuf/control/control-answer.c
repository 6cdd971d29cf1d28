/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parses the requests of the control socket, carries them out and words the answers. */
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "broker/broker.h"
#include "control/control-answer.h"
#include "control/control-status.h"
#include "identity/privileges.h"
#include "log/log.h"
#include "nodes/inode.h"

/*
 * Returns the object as a line, which the caller frees, or NULL if memory runs out. Frees the
 * object, which may be NULL.
 */
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

char *control_answer_error(const char *reason)
{
	return as_line(json_pack("{s:b, s:o}", "ok", 0, "error", control_name_as_json(reason)));
}

/* ---------------------------------------------------------------- revoke */

/* The tokens that a request selects, and the reason for the log. */
struct selection {
	enum { BY_TOKEN, BY_PATH, BY_UID, BY_ALL } by;
	uint64_t token;
	const char *path;
	uid_t uid;
	char reason[64];
	uint64_t unknown;       /* number of tokens whose path is not known */
};

/* Called before each walk through the books: only the last walk's count is told. */
static void reset_unknown(void *data)
{
	struct selection *selection = data;

	selection->unknown = 0;
}

/*
 * Returns true if the file is below the path. The path of a file can be too long to be known: then
 * the file counts as unknown, unless the path is the root, which all files are below.
 */
static bool is_below(const struct inode *inode, struct selection *selection)
{
	char name[INODE_NAME_MAX];

	if (!selection->path[strspn(selection->path, "/")])
		return true;
	if (policy_file_name(inode, name))
		return policy_path_matches(selection->path, name);
	selection->unknown++;
	return false;
}

/* Returns the reason to revoke the token, or NULL if the request does not select it. */
static const char *reason_to_revoke(const struct token *token, void *data)
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

/* Returns false if the request has not exactly one valid selection. */
static bool parse_selection(const json_t *request, struct selection *selection)
{
	const json_t *token = json_object_get(request, "token");
	const json_t *path = json_object_get(request, "path");
	const json_t *uid = json_object_get(request, "uid"), *all = json_object_get(request, "all");

	/* "command" and one of these */
	if (json_object_size(request) != 2)
		return false;
	selection->by = token ? BY_TOKEN : path ? BY_PATH : uid ? BY_UID : BY_ALL;
	selection->token = (uint64_t)json_integer_value(token);
	selection->path = json_string_value(path);
	selection->uid = (uid_t)json_integer_value(uid);
	return (json_is_integer(token) && json_integer_value(token) >= 0) ||
	       (selection->path && *selection->path == '/') ||
	       (json_is_integer(uid) && json_integer_value(uid) >= 0 &&
		json_integer_value(uid) < UINT32_MAX) ||
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

static const char *failure_text(const struct revocation *result)
{
	return result->error == ENOTTY ? "this kernel cannot revoke tokens" :
					 strerror(result->error);
}

static char *answer_revoked(const struct revocation *result, const struct selection *selection)
{
	json_t *answer = json_pack("{s:b, s:I}", "ok", !result->failed,
				   "revoked", (json_int_t)result->revoked);

	if (selection->unknown)
		json_object_set_new(answer, "unknown",
				    json_integer((json_int_t)selection->unknown));
	if (result->failed) {
		json_object_set_new(answer, "failed", json_integer((json_int_t)result->failed));
		json_object_set_new(answer, "error", json_string(failure_text(result)));
	}
	return as_line(answer);
}

static char *answer_revoke(const json_t *request, const struct ucred *peer)
{
	struct selection selection = { 0 };
	struct revocation result;

	if (!parse_selection(request, &selection))
		return control_answer_error("revoke needs one of token (a number), "
					    "path (a pattern that begins with /), "
					    "uid (a number), or all (true)");
	if (selection.by == BY_TOKEN && !has_token(selection.token))
		return control_answer_error("there is no such token");
	snprintf(selection.reason, sizeof(selection.reason), "asked for by uid %u pid %d",
		 peer->uid, peer->pid);
	result = revoke_tokens(&(struct revocation_selector){
		.begin = reset_unknown, .reason = reason_to_revoke, .data = &selection,
		.all = selection.by == BY_ALL });
	log_info("%llu tokens revoked, %s", (unsigned long long)result.revoked, selection.reason);
	return answer_revoked(&result, &selection);
}

/* ---------------------------------------------------------------- requests */

static char *answer_request(const json_t *request, const struct ucred *peer)
{
	const char *command = json_string_value(json_object_get(request, "command"));

	if (command && !strcmp(command, "revoke"))
		return answer_revoke(request, peer);
	/* A client that waits for a long revocation asks by ping whether the server lives. */
	if (command && !strcmp(command, "ping") && json_object_size(request) == 1)
		return as_line(json_pack("{s:b}", "ok", 1));
	return control_answer_error("command must be \"status\", \"revoke\" or \"ping\"");
}

static bool is_for_status(const json_t *request)
{
	const char *command = json_string_value(json_object_get(request, "command"));

	return command && !strcmp(command, "status") && json_object_size(request) == 1;
}

void control_answer(const char *text, size_t length, const struct ucred *peer,
		    struct control_output *output)
{
	json_t *request = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
	char *answer = NULL;

	/* Releasing a node may close its backing file, which needs privileges. */
	privileges_resume();
	if (!json_is_object(request))
		answer = control_answer_error("the request must be a JSON object in one line");
	else if (is_for_status(request))
		control_status(output);
	else
		answer = answer_request(request, peer);
	privileges_suspend();
	if (answer)
		control_output_add(output, answer, strlen(answer));
	free(answer);
	json_decref(request);
}
