/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The broker: who gets a token, and what has been given. */
#ifndef BROKER_H
#define BROKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct inode;

struct broker_policy {
	bool deny;
	uint64_t max_bytes;     /* of all tokens together */
};

/* Who asks for what. */
struct token_request {
	uint64_t id;
	struct inode *inode;
	int open_flags;
	uint64_t size;
	uint32_t direction;     /* FUSE_DMABUF_TOKEN_READ, _WRITE */
	uid_t uid;
	pid_t pid;
	char exporter[33];
};

/* What became of a token, by the kernel's counters. */
struct token_end {
	uint64_t id;
	uint64_t requests, read_bytes, write_bytes;
	uint32_t reason;
};

struct broker_count {
	uint64_t tokens, bytes;
};

/* The books as they were at one moment. */
struct broker_state {
	struct broker_count all, user;
};

void broker_begin(const struct broker_policy *policy);

/* The connection has ended, and all tokens with it. */
void broker_end(void);

/* 0 and the directions that were granted, or an errno. */
int broker_grant(const struct token_request *request, uint32_t *direction);

/* The kernel ended a token. False: there is none with this id. */
bool broker_release(const struct token_end *end);

/* The answer to a grant found nobody waiting. */
void broker_withdraw(uint64_t id);

/* What all users and one user have now. */
struct broker_state broker_state(uid_t uid);

#endif
