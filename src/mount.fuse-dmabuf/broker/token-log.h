/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One line for each thing that happens to a token. */
#ifndef TOKEN_LOG_H
#define TOKEN_LOG_H

#include "broker/broker.h"
#include "broker/token.h"

/* Returns true if what becomes of the token is to be said: for token_request.is_logged. */
bool token_log_has_room(const struct token_request *request);

void token_log_granted(const struct token_request *request, uint32_t direction,
		       const struct broker_state *state);
void token_log_refused(const struct token_request *request, const char *reason);
void token_log_revoked(const struct token_request *request, const char *reason);
void token_log_not_revoked(const struct token_request *request, const char *reason, int error);
void token_log_ended(const struct token_request *request, const struct token_end *end);
void token_log_withdrawn(const struct token_request *request);

#endif
