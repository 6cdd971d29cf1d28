/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The log of tokens. All lines describe the token with the same words. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "broker/token-log.h"
#include "broker/token-protocol.h"
#include "limits/log-quota.h"
#include "log/log.h"
#include "nodes/inode.h"

/* Bytes of the description of a token: the file's name and the other fields. */
#define DESCRIPTION_MAX (INODE_NAME_MAX + 160)

/* A user chooses the name: with a quote in it the name could forge the fields that follow. */
static const char *replace_quotes(char *name)
{
	for (char *quote = name; (quote = strchr(quote, '"'));)
		*quote = '?';
	return name;
}

static const char *describe(const struct token_request *request, char text[DESCRIPTION_MAX])
{
	char name[INODE_NAME_MAX];

	inode_name(request->inode, name);
	snprintf(text, DESCRIPTION_MAX, "\"%s\" uid %u pid %d size %" PRIu64 " exporter %s",
		 replace_quotes(name), request->owner.uid, request->pid, request->size,
		 request->exporter);
	return text;
}

static const char *reason_name(uint32_t reason)
{
	switch (reason) {
	case FUSE_DMABUF_RELEASE_CLOSED:
		return "closed";
	case FUSE_DMABUF_RELEASE_REVOKED:
		return "revoked";
	case FUSE_DMABUF_RELEASE_FAILED:
		return "not used, because the registration failed later";
	default:
		return "ended for a reason unknown here";
	}
}

bool token_log_has_room(const struct token_request *request)
{
	unsigned int left_out;
	bool room = log_quota_allows(LOG_QUOTA_GRANTS, request->owner.uid, &left_out);

	if (room && left_out)
		log_info("%u more tokens of uid %u, or others, were granted, "
			 "which was not said each time", left_out, request->owner.uid);
	return room;
}

void token_log_granted(const struct token_request *request, uint32_t direction,
		       const struct broker_state *state)
{
	char text[DESCRIPTION_MAX];

	if (!request->is_logged)
		return;
	log_info("token %" PRIu64 " granted: %s, %s; this user has %" PRIu64 " tokens of %" PRIu64
		 " bytes, all users %" PRIu64 " of %" PRIu64, request->id, describe(request, text),
		 token_direction_name(direction), state->user.tokens, state->user.bytes,
		 state->all.tokens, state->all.bytes);
}

void token_log_refused(const struct token_request *request, const char *reason)
{
	char text[DESCRIPTION_MAX];
	unsigned int left_out;

	if (!log_quota_allows(LOG_QUOTA_REFUSALS, request->owner.uid, &left_out))
		return;
	if (left_out)
		log_warning("%u more tokens of uid %u, or others, were refused, "
			    "which was not said each time", left_out, request->owner.uid);
	log_warning("token %" PRIu64 " refused: %s: %s", request->id, describe(request, text),
		    reason);
}

void token_log_revoked(const struct token_request *request, const char *reason)
{
	char text[DESCRIPTION_MAX];

	if (!request->is_logged)
		return;
	log_info("token %" PRIu64 " is revoked: %s: %s", request->id, describe(request, text),
		 reason);
}

void token_log_not_revoked(const struct token_request *request, const char *reason, int error)
{
	char text[DESCRIPTION_MAX];

	log_error("token %" PRIu64 " should be revoked and is not: %s: %s: %s", request->id,
		  describe(request, text), reason,
		  error == ENOTTY ? "this kernel cannot revoke tokens" : strerror(error));
}

void token_log_ended(const struct token_request *request, const struct token_end *end)
{
	char text[DESCRIPTION_MAX];

	if (!request->is_logged)
		return;
	log_info("token %" PRIu64 " %s: %s, %" PRIu64 " requests, %" PRIu64 " bytes read, %" PRIu64
		 " bytes written", request->id, reason_name(end->reason), describe(request, text),
		 end->requests, end->read_bytes, end->write_bytes);
}

void token_log_withdrawn(const struct token_request *request)
{
	char text[DESCRIPTION_MAX];

	if (!request->is_logged)
		return;
	log_info("token %" PRIu64 " withdrawn: %s: nobody waited for the answer any more",
		 request->id, describe(request, text));
}
