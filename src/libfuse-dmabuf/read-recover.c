/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a read goes on when its token has ended. Either the broker has revoked it: then it is asked once for a new
 * one, and its policy decides. Or the server has ended, and the token with the connection: then the mount is
 * waited for, and the file opened again there.
 */
#include <stdio.h>
#include <time.h>

#include "common/clock.h"
#include "transfer.h"

/* A look costs a few system calls. */
#define LOOK_INTERVAL_MS 100u

/* In one read. A server that ends each time may do so because of what we ask it for. */
#define RETURNS_MAX 3u

/* The rest of this read, and the reads to come, without the token. */
static void turn_to_bounce(struct transfer *t)
{
	struct fdmabuf_channel *channel = t->channel;
	bool was_direct = t->is_direct;

	channel->path = FDMABUF_BOUNCE;
	channel->generation = channel->file->generation;
	t->is_direct = false;
	t->error = buffer_prepare_copy(channel->buffer);
	if (!t->error)
		t->error = channel_allocate_host(channel);
	/* The requests that were in flight are larger and more than those of bounce. */
	for (uint32_t i = 0; was_direct && i < channel->depth; i++) {
		struct request *request = &channel->requests[i];

		if (request->state == REQUEST_READY && !t->error)
			copy_range(t, request->position, request->end);
		request->state = REQUEST_FREE;
	}
}

/* No new token, for the reason that the channel has. */
static void give_token_up(struct transfer *t, const char *how)
{
	struct fdmabuf_channel *channel = t->channel;
	char why[sizeof(channel->reason_text)];

	snprintf(why, sizeof(why), "%s", channel->reason_text);
	channel_set_reason(channel, channel->reason, "%s: %.190s", how, why);
	if (channel->wanted_path == FDMABUF_DIRECT)
		t->error = fail(ESTALE, "%s: %s", channel->file->path, channel->reason_text);
	else
		turn_to_bounce(t);
}

/* Once a read: whoever revokes tokens and wants no new ones says so in the policy, not by revoking again. */
static void ask_for_new_token(struct transfer *t)
{
	struct fdmabuf_channel *channel = t->channel;
	int ret = -ESTALE;

	t->token_has_ended = false;
	if (t->has_asked_for_token)
		channel_set_reason(channel, FDMABUF_REASON_REVOKED, "it was revoked as well");
	else
		ret = channel_register(channel);
	if (ret && file_server_has_ended(channel->file)) {
		t->server_has_ended = true;
		return;
	}
	t->has_asked_for_token = true;
	if (!ret)
		return;
	channel->reason = FDMABUF_REASON_REVOKED;
	give_token_up(t, "the broker ended the token and gave no new one");
}

/* Looks at once, and then until the time is over or the progress function has enough. */
static void look_for_file(struct transfer *t)
{
	const struct timespec interval = { .tv_nsec = LOOK_INTERVAL_MS * 1000000 };
	struct fdmabuf_file *file = t->channel->file;
	int64_t deadline = monotonic_milliseconds() + t->channel->mount_wait;

	for (;;) {
		char why[512];
		int ret = file_reopen(file);

		if (ret != -EAGAIN) {
			t->error = ret;
			return;
		}
		snprintf(why, sizeof(why), "%s", fdmabuf_error());
		transfer_report_progress(t);
		if (t->error)
			return;
		if (monotonic_milliseconds() >= deadline) {
			t->error = fail(ENOTCONN, "%s: the FUSE server of this mount has ended, and the file has not returned within %u ms (%s): mount it again, and start again",
					file->path, t->channel->mount_wait, why);
			return;
		}
		nanosleep(&interval, NULL);	/* a signal ends it: the progress function may want to know */
	}
}

static void wait_for_return(struct transfer *t)
{
	struct fdmabuf_channel *channel = t->channel;
	const char *path = channel->file->path;

	t->server_has_ended = false;
	t->token_has_ended = false;
	if (!channel->mount_wait)
		t->error = fail(ENOTCONN, "%s: the FUSE server of this mount has ended: mount it again", path);
	else if (!channel->file->real_path)
		t->error = fail(ENOTCONN, "%s: the FUSE server of this mount has ended, and the file has no path by which it could be opened again", path);
	else if (t->mount_waits++ >= RETURNS_MAX)
		t->error = fail(ENOTCONN, "%s: the FUSE server of this mount has ended %u times during one read: look into its log", path,
				RETURNS_MAX + 1);
	if (t->error)
		return;

	channel->is_waiting = true;
	look_for_file(t);
	channel->is_waiting = false;
	if (!t->error)
		channel->counters.reopens++;
}

/* The file is on a new mount: so must be what the channel has of it. */
static void follow_file(struct transfer *t)
{
	struct fdmabuf_channel *channel = t->channel;
	int ret;

	channel->bounce_is_plain = false;
	if (channel->path == FDMABUF_BOUNCE || !channel->ring) {
		channel->generation = channel->file->generation;
		return;
	}
	ret = channel_register(channel);
	if (ret && file_server_has_ended(channel->file))
		t->server_has_ended = true;
	else if (ret)
		give_token_up(t, "the mount has returned and gives no token");
}

void transfer_recover(struct transfer *t)
{
	while (!t->error && transfer_needs_recovery(t)) {
		if (t->server_has_ended)
			wait_for_return(t);
		else if (t->channel->generation != t->channel->file->generation)
			follow_file(t);
		else
			ask_for_new_token(t);
	}
}
