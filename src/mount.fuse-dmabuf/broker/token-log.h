/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The log of tokens: one line for each grant, refusal, revocation and end. */
#ifndef TOKEN_LOG_H
#define TOKEN_LOG_H

#include "broker/broker.h"
#include "broker/token.h"

/*
 * Returns true if the user's log quota has room for one more token, and logs how many were left out
 * before. The result is for token_request.is_logged.
 */
bool token_log_has_room(const struct token_request *request);

/*
 * Log one line if token_request.is_logged is set. Refusals have a quota of their own instead, and
 * a token that could not be revoked is always logged.
 */
void token_log_granted(const struct token_request *request, uint32_t direction,
		       const struct broker_state *state);
void token_log_refused(const struct token_request *request, const char *reason);
void token_log_revoked(const struct token_request *request, const char *reason);
void token_log_not_revoked(const struct token_request *request, const char *reason, int error);
void token_log_ended(const struct token_request *request, const struct token_end *end);
void token_log_withdrawn(const struct token_request *request);

#endif
