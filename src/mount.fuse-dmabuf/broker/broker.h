/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * broker/ decides who gets a token, counts tokens, and revokes them.
 * May call: containers, identity, limits, log, nodes.
 */
#ifndef BROKER_H
#define BROKER_H

#include <stdbool.h>

#include "broker/books.h"
#include "broker/policy.h"
#include "broker/revocation.h"

/* The books as they were at one moment. */
struct broker_state {
	struct token_count all, user;
};

/* Takes over the policy. */
void broker_begin(struct policy *policy);

/* The connection has ended, and all tokens with it. */
void broker_end(void);

/* 0 and the directions that were granted, or an errno. The groups of the owner go over to the broker. */
int broker_grant(struct token_request *request, uint32_t *direction);

/* The kernel has taken the answer to a grant. */
void broker_answered(uint64_t id);

/* The kernel ended a token. False: there is none with this id. */
bool broker_release(const struct token_end *end);

/* The answer to a grant found nobody waiting. */
void broker_withdraw(uint64_t id);

/* What all users and one user have now. */
struct broker_state broker_state(uid_t uid);

/* The policy, as long as the books are locked. */
const struct policy *broker_policy(void);

/*
 * Takes over a new policy. All tokens are looked at as if they were asked for again, the oldest first; those
 * that would be refused are revoked.
 */
struct revocation broker_set_policy(struct policy *policy);

/*
 * Revokes the tokens of those who have lost their rights to a file. It is called when rights have changed, before anybody
 * is told that they have: what ends a right ends the tokens that rest on it.
 */
void broker_recheck_file(struct inode *inode);

/* A file has been removed: revokes its tokens. */
void broker_revoke_file(struct inode *inode);

/* The same for whichever files have no name left. */
void broker_revoke_removed(void);

bool broker_has_tokens(void);

#endif
