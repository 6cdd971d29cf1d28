/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Revocation by the ioctl of the FUSE device, and the counters that fusectl shows. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "broker/kernel-tokens.h"
#include "broker/token-protocol.h"
#include "limits/descriptor-limit.h"

static int device = -1;
static unsigned int connection;

void kernel_tokens_begin(int device_fd, unsigned int connection_number)
{
	device = device_fd;
	connection = connection_number;
}

bool kernel_has_tokens(void)
{
	/* No token has this id, but a kernel that can revoke tokens looks for one. */
	return kernel_token_revoke(UINT64_MAX) != ENOTTY;
}

static int revoke(struct fuse_dmabuf_revoke selection)
{
	return ioctl(device, FUSE_DEV_IOC_DMABUF_REVOKE, &selection) ? errno : 0;
}

int kernel_token_revoke(uint64_t id)
{
	return revoke((struct fuse_dmabuf_revoke){ .by = FUSE_DMABUF_REVOKE_TOKEN, .token = id });
}

int kernel_tokens_revoke_node(uint64_t nodeid)
{
	return revoke((struct fuse_dmabuf_revoke){
		.by = FUSE_DMABUF_REVOKE_NODE, .nodeid = nodeid });
}

int kernel_tokens_revoke_all(void)
{
	return revoke((struct fuse_dmabuf_revoke){ .by = FUSE_DMABUF_REVOKE_ALL });
}

/* ---------------------------------------------------------------- statistics */

/* Stores the value of one word. Returns true if the word is the id of the token. */
static bool parse_word(const char *word, struct kernel_counters *counters)
{
	const struct {
		const char *name;
		uint64_t *value;
	} names[] = {
		{ "token=", &counters->token },
		{ "requests=", &counters->requests },
		{ "read_bytes=", &counters->read_bytes },
		{ "write_bytes=", &counters->write_bytes },
		{ "peer_bytes=", &counters->peer_bytes },
		{ "maps=", &counters->maps },
		{ "invalidations=", &counters->invalidations },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strncmp(word, names[i].name, strlen(names[i].name))) {
			*names[i].value = strtoull(word + strlen(names[i].name), NULL, 10);
			return i == 0;
		}
	}
	return false;
}

bool kernel_counters_parse(const char *line, struct kernel_counters *counters)
{
	bool has_token = false;

	*counters = (struct kernel_counters){ 0 };
	while (*line) {
		has_token |= parse_word(line, counters);
		line += strcspn(line, " \n");
		line += strspn(line, " \n");
	}
	return has_token;
}

static int compare_ids(const void *one, const void *other)
{
	const struct kernel_counters *a = one, *b = other;

	return a->token < b->token ? -1 : a->token > b->token;
}

/* Returns false if out of memory; the counters so far stay. */
static bool append_counters(struct kernel_statistics *statistics,
			    const struct kernel_counters *counters)
{
	struct kernel_counters *grown = statistics->tokens;

	/* The capacity is a power of two; it doubles when the count reaches it. */
	if (!(statistics->count & (statistics->count - 1))) {
		grown = realloc(grown,
				(statistics->count ? 2 * statistics->count : 1) * sizeof(*grown));
		if (!grown)
			return false;
	}
	statistics->tokens = grown;
	grown[statistics->count++] = *counters;
	return true;
}

void kernel_statistics_read(struct kernel_statistics *statistics)
{
	struct kernel_counters counters;
	char path[64], *line = NULL;
	size_t room = 0;
	FILE *file;

	*statistics = (struct kernel_statistics){ 0 };
	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/dmabuf_tokens", connection);
	do {
		file = fopen(path, "re");
	} while (!file && may_open_again());
	if (!file)
		return;
	statistics->known = true;
	while (getline(&line, &room, file) > 0) {
		if (kernel_counters_parse(line, &counters) &&
		    !append_counters(statistics, &counters))
			break;
	}
	free(line);
	fclose(file);
	if (statistics->count)
		qsort(statistics->tokens, statistics->count, sizeof(*statistics->tokens),
		      compare_ids);
}

void kernel_statistics_free(struct kernel_statistics *statistics)
{
	free(statistics->tokens);
}

const struct kernel_counters *kernel_statistics_find(const struct kernel_statistics *statistics,
						     uint64_t token)
{
	const struct kernel_counters wanted = { .token = token };

	if (!statistics->count)
		return NULL;
	return bsearch(&wanted, statistics->tokens, statistics->count, sizeof(wanted), compare_ids);
}
