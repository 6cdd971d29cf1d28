/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes the answer to "status" from the books and from the kernel's counters. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "broker/books-copy.h"
#include "broker/broker.h"
#include "broker/kernel-tokens.h"
#include "control/control-status.h"
#include "nodes/inode.h"

static struct {
	const char *source, *mountpoint;
} served;

void control_status_begin(const char *source, const char *mountpoint)
{
	served.source = source;
	served.mountpoint = mountpoint;
}

json_t *control_name_as_json(const char *name)
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

/* Returns how long ago the token was granted, in seconds. */
static double age_of(const struct token *token)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (double)(now.tv_sec - token->granted.tv_sec) +
	       (double)(now.tv_nsec - token->granted.tv_nsec) / 1e9;
}

/* Adds the kernel's counters of a token, as null if the kernel does not tell them (NULL). */
static void add_counters(json_t *object, const struct kernel_counters *counters)
{
	json_t *more = counters ?
		json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}",
			  "requests", (json_int_t)counters->requests,
			  "read_bytes", (json_int_t)counters->read_bytes,
			  "write_bytes", (json_int_t)counters->write_bytes,
			  "peer_bytes", (json_int_t)counters->peer_bytes,
			  "maps", (json_int_t)counters->maps,
			  "invalidations", (json_int_t)counters->invalidations) :
		json_pack("{s:n, s:n, s:n, s:n, s:n, s:n}", "requests", "read_bytes",
			  "write_bytes", "peer_bytes", "maps", "invalidations");

	json_object_update_new(object, more);
}

static json_t *token_as_json(const struct token *token,
			     const struct kernel_statistics *statistics)
{
	const struct token_request *request = &token->request;
	char name[INODE_NAME_MAX];
	json_t *object = json_pack("{s:I, s:o, s:I, s:i, s:I, s:s, s:s, s:f, s:b}",
		"id", (json_int_t)request->id,
		"path", control_name_as_json(inode_name(request->inode, name)),
		"uid", (json_int_t)request->owner.uid,
		"pid", (int)request->pid,
		"bytes", (json_int_t)request->size,
		"exporter", request->exporter,
		"direction", token_direction_name(token->direction),
		"age", age_of(token),
		"revoked", token->revoked);

	if (object)
		add_counters(object, kernel_statistics_find(statistics, request->id));
	return object;
}

static json_t *count_as_json(const struct token_count *count)
{
	return json_pack("{s:I, s:I}", "tokens", (json_int_t)count->tokens,
			 "bytes", (json_int_t)count->bytes);
}

/* A value above INT64_MAX means that there is no limit, which is null in JSON. */
static json_t *limit_as_json(uint64_t limit)
{
	return limit > INT64_MAX ? json_null() : json_integer((json_int_t)limit);
}

static json_t *limits_as_json(const struct policy *policy)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:b}",
		"max_tokens", limit_as_json(policy->all.tokens),
		"max_bytes", limit_as_json(policy->all.bytes),
		"user_max_tokens", limit_as_json(policy->user.tokens),
		"user_max_bytes", limit_as_json(policy->user.bytes), "deny", policy->deny);
}

/* State of the mount as a whole, as it was when the walk over the tokens began. */
struct summary {
	struct token_count all;
	struct policy limits;   /* a copy, whose rules and quotas must not be used */
	struct users_copy users;
};

/*
 * Makes the summary and begins the walk. Returns false if memory runs out; nothing is to be freed
 * then.
 */
static bool make_summary(struct summary *summary, struct books_walk *walk)
{
	bool copied;

	books_lock();
	summary->all = books_count_of_all();
	/* The rules and quotas stay the broker's: they may be used only under the lock. */
	summary->limits = *broker_policy();
	copied = users_copy_make(&summary->users);
	if (copied)
		books_walk_begin(walk);
	books_unlock();
	return copied;
}

static json_t *summary_as_json(const struct summary *summary,
			       const struct kernel_statistics *statistics)
{
	return json_pack("{s:b, s:b, s:s, s:i, s:o, s:o, s:b, s:o, s:o}",
		"ok", 1,
		"available", kernel_has_tokens(),
		"version", FUSE_DMABUF_VERSION,
		"pid", (int)getpid(),
		"source", control_name_as_json(served.source),
		"mountpoint", control_name_as_json(served.mountpoint),
		"counters", statistics->known,
		"all", count_as_json(&summary->all),
		"limits", limits_as_json(&summary->limits));
}

static void add_text(struct control_output *output, const char *text)
{
	control_output_add(output, text, strlen(text));
}

static void add_users(struct control_output *output, const struct users_copy *users)
{
	for (size_t i = 0; i < users->count; i++) {
		add_text(output, i ? "," : "");
		control_output_add_json(output, json_pack("{s:I, s:I, s:I}",
			"uid", (json_int_t)users->all[i].uid,
			"tokens", (json_int_t)users->all[i].count.tokens,
			"bytes", (json_int_t)users->all[i].count.bytes), 0);
	}
}

/* Holds no lock while it looks up paths or waits for the client. */
static void add_tokens(struct control_output *output, struct books_walk *walk,
		       const struct kernel_statistics *statistics)
{
	struct tokens_copy some;
	bool first = true;

	while (!control_output_has_failed(output) && tokens_copy_next(&some, walk)) {
		for (size_t i = 0; i < some.count; i++) {
			add_text(output, first ? "" : ",");
			control_output_add_json(output, token_as_json(&some.tokens[i], statistics),
						0);
			first = false;
		}
		tokens_copy_free(&some);
	}
}

static void add_status(struct control_output *output, const struct summary *summary,
		       struct books_walk *walk, const struct kernel_statistics *statistics)
{
	add_text(output, "{");
	control_output_add_json(output, summary_as_json(summary, statistics), JSON_EMBED);
	add_text(output, ",\"users\":[");
	add_users(output, &summary->users);
	add_text(output, "],\"tokens\":[");
	add_tokens(output, walk, statistics);
	add_text(output, "]}\n");
}

void control_status(struct control_output *output)
{
	struct kernel_statistics statistics;
	struct summary summary;
	struct books_walk walk;

	kernel_statistics_read(&statistics);
	if (make_summary(&summary, &walk)) {
		add_status(output, &summary, &walk, &statistics);
		books_lock();
		books_walk_end(&walk);
		books_unlock();
		users_copy_free(&summary.users);
	}
	kernel_statistics_free(&statistics);
}
