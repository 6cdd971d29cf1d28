/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Continues a read whose token has ended. If the broker has revoked the token, the read asks once
 * for a new one, which the policy grants or refuses. If the FUSE server has ended, and the token
 * with the connection, the read waits for the mount to return and reopens the file there.
 */
#include <stdio.h>
#include <time.h>

#include "common/clock.h"
#include "transfer.h"

/* How often to look for the mount, in ms. A look costs a few system calls. */
#define POLL_INTERVAL_MS 100u

/* In one read. If a server ends every time, the read itself may be the cause: stop asking. */
#define MOUNT_WAITS_MAX 3u

/* Continues this read, and the later ones of the channel, without a token. */
static void switch_to_bounce(struct transfer *t)
{
	struct fdmabuf_channel *channel = t->channel;
	bool was_direct = t->is_direct;

	channel->path = FDMABUF_BOUNCE;
	channel->generation = channel->file->generation;
	t->is_direct = false;
	t->error = buffer_prepare_copy(channel->buffer);
	if (!t->error)
		t->error = channel_allocate_host(channel);
	/*
	 * The direct requests that are not complete may be larger, and more, than bounce has memory
	 * for: copy their ranges here.
	 */
	for (uint32_t i = 0; was_direct && i < channel->depth; i++) {
		struct request *request = &channel->requests[i];

		if (request->state == REQUEST_READY && !t->error)
			copy_range(t, request->position, request->end);
		request->state = REQUEST_FREE;
	}
}

/*
 * Switches to bounce, or fails with ESTALE if the caller wants FDMABUF_DIRECT. The channel's reason
 * says why there is no new token; @event, which came before, is put in front of the reason.
 */
static void give_up_token(struct transfer *t, const char *event)
{
	struct fdmabuf_channel *channel = t->channel;
	char cause[sizeof(channel->reason_text)];

	snprintf(cause, sizeof(cause), "%s", channel->reason_text);
	channel_set_reason(channel, channel->reason, "%s: %.190s", event, cause);
	if (channel->wanted_path == FDMABUF_DIRECT)
		t->error = fail(ESTALE, "%s: %s", channel->file->path, channel->reason_text);
	else
		switch_to_bounce(t);
}

/*
 * Asks for a new token, but only once per read. An administrator who wants none granted changes the
 * policy; revoking again is not the way to say so.
 */
static void ask_for_new_token(struct transfer *t)
{
	struct fdmabuf_channel *channel = t->channel;
	int ret = -ESTALE;

	t->token_has_ended = false;
	if (t->has_asked_for_token)
		channel_set_reason(channel, FDMABUF_REASON_REVOKED,
				   "the next token was revoked as well");
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
	give_up_token(t, "the broker ended the token and gave no new one");
}

/*
 * Tries to reopen the file until that succeeds or fails for good, mount_wait is over, or the
 * progress function cancels the read. Sets t->error unless the file is open again.
 */
static void poll_for_file(struct transfer *t)
{
	const struct timespec interval = { .tv_nsec = POLL_INTERVAL_MS * 1000000 };
	struct fdmabuf_file *file = t->channel->file;
	int64_t deadline = monotonic_milliseconds() + t->channel->mount_wait;

	for (;;) {
		char open_error[512];
		int ret = file_reopen(file);

		if (ret != -EAGAIN) {
			t->error = ret;
			return;
		}
		snprintf(open_error, sizeof(open_error), "%s", fdmabuf_error());
		transfer_report_progress(t);
		if (t->error)
			return;
		if (monotonic_milliseconds() >= deadline) {
			t->error = fail(ENOTCONN, "%s: the FUSE server of this mount has ended, "
					"and the file has not returned within %u ms (%s): "
					"mount it again, and start again",
					file->path, t->channel->mount_wait, open_error);
			return;
		}
		/* A signal ends the sleep early, so that the progress function can react to it. */
		nanosleep(&interval, NULL);
	}
}

static void wait_for_mount(struct transfer *t)
{
	struct fdmabuf_channel *channel = t->channel;
	const char *path = channel->file->path;

	t->server_has_ended = false;
	t->token_has_ended = false;
	if (!channel->mount_wait)
		t->error = fail(ENOTCONN, "%s: the FUSE server of this mount has ended: "
				"mount it again", path);
	else if (!channel->file->real_path)
		t->error = fail(ENOTCONN, "%s: the FUSE server of this mount has ended, "
				"and the file has no path by which it could be opened again",
				path);
	else if (t->mount_waits++ >= MOUNT_WAITS_MAX)
		t->error = fail(ENOTCONN, "%s: the FUSE server of this mount has ended %u times "
				"during one read: look into the server's log", path,
				MOUNT_WAITS_MAX + 1);
	if (t->error)
		return;

	channel->is_waiting = true;
	poll_for_file(t);
	channel->is_waiting = false;
	if (!t->error)
		channel->counters.reopens++;
}

/* Makes the channel use the file on its new mount. A direct channel gets a new token there. */
static void register_on_new_mount(struct transfer *t)
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
		give_up_token(t, "the mount has returned and gives no token");
}

void transfer_recover(struct transfer *t)
{
	while (!t->error && transfer_needs_recovery(t)) {
		if (t->server_has_ended)
			wait_for_mount(t);
		else if (t->channel->generation != t->channel->file->generation)
			register_on_new_mount(t);
		else
			ask_for_new_token(t);
	}
}
