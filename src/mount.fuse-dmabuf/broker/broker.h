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

/* What all users, and what one user, have at one moment. */
struct broker_state {
	struct token_count all, user;
};

/* Takes over the policy. */
void broker_begin(struct policy *policy);

/* Frees the policy and all tokens: the connection has ended, and all tokens have ended with it. */
void broker_end(void);

/*
 * Decides a request and logs the decision. Returns 0 and the granted directions, or an errno. The
 * broker takes over the groups of the owner in either case.
 */
int broker_grant(struct token_request *request, uint32_t *direction);

/* To call when the kernel has taken the answer to a grant: the token can be revoked from now on. */
void broker_answered(uint64_t id);

/* Removes a token that the kernel has ended. Returns false if there is no token with this id. */
bool broker_release(const struct token_end *end);

/* Removes a granted token of which the kernel did not take the answer: nobody waits for it. */
void broker_withdraw(uint64_t id);

/* Returns what all users and this user have now. */
struct broker_state broker_state(uid_t uid);

/* Returns the policy, which is valid while the caller holds books_lock(). */
const struct policy *broker_policy(void);

/*
 * Takes over a new policy in place of the present one. Checks all tokens as if they were requested
 * again, the oldest first, and revokes those that the policy would refuse.
 */
struct revocation broker_set_policy(struct policy *policy);

/*
 * Revokes the tokens of the file whose owners have lost their rights to it. To call after rights
 * have changed and before the change is answered: when somebody is told that a right has ended, the
 * tokens that rest on it have ended, too.
 */
void broker_recheck_file(struct inode *inode);

/* Revokes all tokens of a file that has been removed. */
void broker_revoke_file(struct inode *inode);

/* Revokes the tokens of every file whose last link is gone. */
void broker_revoke_removed(void);

/* Returns true if there are tokens, also if all are revoked and only held. */
bool broker_has_tokens(void);

#endif
