/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Continues transfers whose token has ended. If the broker has revoked the token, each transfer
 * asks once for a new one, which the policy grants or refuses. If the FUSE server has ended, and
 * the token with the connection, the transfer waits for the mount to return and uses the file
 * there.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "queue/recover.h"

/* How often to look for the mount, in ms. A look costs a few system calls. */
#define LOOK_INTERVAL 100

/* In one transfer and file. If a server ends every time, the transfer itself may be the cause. */
#define MOUNT_WAITS_MAX 3u

bool use_needs_recovery(const struct use *use)
{
	const struct pair *pair = use->pair;

	return pair->is_lost || pair->token_has_ended || use->handle != pair->handle;
}

/* Ends the transfer if the exporter gives the CPU no access. */
static void switch_to_bounce(struct fdmabuf_transfer *t, struct pair *pair)
{
	int ret;

	pair_switch_to_bounce(pair);
	ret = buffer_prepare_copy(pair->buffer);
	if (ret)
		transfer_stop(t, ret);
}

/*
 * Switches the pair to bounce, or ends the transfer with ESTALE if the caller wants FDMABUF_DIRECT.
 * The pair's reason says why there is no new token; @event, which came before, is put in front of
 * it.
 */
static void give_up_token(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t,
			  struct pair *pair, const char *event)
{
	char cause[REASON_TEXT_SIZE];

	snprintf(cause, sizeof(cause), "%s", pair->reason_text);
	pair_set_reason(pair, pair->reason, "%s: %.190s", event, cause);
	if (queue->wanted_path == FDMABUF_DIRECT) {
		/* The next transfer asks again. */
		pair_forget_token(pair);
		transfer_stop(t, fail(ESTALE, "%s: %s", pair->file->path, pair->reason_text));
		return;
	}
	switch_to_bounce(t, pair);
}

/*
 * A pair whose turn came after the transfer had begun has got no token, for the reason that is set.
 */
static void do_without_first_token(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t,
				   struct pair *pair, int error)
{
	if (queue->wanted_path == FDMABUF_DIRECT) {
		transfer_stop(t, fail(error, "%s: direct path impossible: %s", pair->file->path,
				      pair->reason_text));
		return;
	}
	switch_to_bounce(t, pair);
}

/*
 * Asks for a new token, but only once per transfer. An administrator who wants none granted changes
 * the policy; revoking again is not the way to say so.
 */
static void ask_for_new_token(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t,
			      struct use *use)
{
	struct pair *pair = use->pair;
	int ret = -ESTALE;

	pair->token_has_ended = false;
	pair_forget_token(pair);
	if (use->has_asked_for_token)
		pair_set_reason(pair, FDMABUF_REASON_REVOKED, "the next token was revoked as well");
	else
		ret = pair_need_token(pair);
	if (!ret) {
		use->has_asked_for_token = true;
		return;
	}
	if (ret == -EBUSY)	/* asked for again when the request is submitted */
		return;
	if (handle_is_lost(pair->handle, ENOTCONN)) {
		pair->is_lost = true;
		return;
	}
	if (!pair->serial) {
		do_without_first_token(queue, t, pair, -ret);
		return;
	}
	use->has_asked_for_token = true;
	pair->reason = FDMABUF_REASON_REVOKED;
	give_up_token(queue, t, pair, "the broker ended the token and gave no new one");
}

/* Returns false, after ending the transfer, if it does not wait for the mount. */
static bool begin_to_wait(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t, struct use *use)
{
	const struct fdmabuf_file *file = use->pair->file;

	if (!queue->mount_wait)
		transfer_stop(t, fail(ENOTCONN, "%s: the FUSE server of this mount has ended: "
				      "mount it again", file->path));
	else if (!file->real_path)
		transfer_stop(t, fail(ENOTCONN, "%s: the FUSE server of this mount has ended, "
				      "and the file has no path by which it could be opened again",
				      file->path));
	else if (use->mount_waits++ >= MOUNT_WAITS_MAX)
		transfer_stop(t, fail(ENOTCONN, "%s: the FUSE server of this mount has ended %u "
				      "times during one transfer: look into the server's log",
				      file->path, MOUNT_WAITS_MAX + 1));
	else
		use->deadline = monotonic_milliseconds() + queue->mount_wait;
	return !t->error;
}

static void look_for_mount(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t,
			   struct use *use)
{
	struct pair *pair = use->pair;
	struct fd_handle *handle;
	int64_t now = monotonic_milliseconds();
	int ret;

	if (!use->deadline && !begin_to_wait(queue, t, use))
		return;
	if (now < pair->next_look)
		return;
	pair->next_look = now + LOOK_INTERVAL;
	ret = file_reopen(pair->file, pair->handle, &handle);
	if (!ret)
		pair_set_handle(pair, handle);
	else if (ret != -EAGAIN)
		transfer_stop(t, ret);
	else if (now >= use->deadline) {
		char open_error[512];

		snprintf(open_error, sizeof(open_error), "%s", fdmabuf_error());
		transfer_stop(t, fail(ENOTCONN, "%s: the FUSE server of this mount has ended, and "
				      "the file has not returned within %u ms (%s): mount it "
				      "again, and start again", pair->file->path, queue->mount_wait,
				      open_error));
	}
}

/*
 * A read must not mix bytes of two versions of a file. A write does not: what it has written is
 * there, and changes the file's times itself.
 */
static bool has_changed(struct fdmabuf_transfer *t, struct use *use, const char *when)
{
	const struct pair *pair = use->pair;
	struct file_version now;
	const char *difference;

	if (t->direction == FDMABUF_WRITE || !handle_get_version(pair->handle, &now))
		return false;
	if (!use->has_version) {	/* the server had ended before the transfer began */
		use->version = now;
		use->has_version = true;
		return false;
	}
	difference = file_version_difference(&use->version, &now);
	if (difference)
		transfer_stop(t, fail(ESTALE, "%s: the mount has returned, but the file %s %s: "
				      "start again", pair->file->path, difference, when));
	return difference;
}

static void continue_on_new_mount(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t,
				  struct use *use)
{
	struct pair *pair = use->pair;
	int ret;

	use->handle = pair->handle;
	use->deadline = 0;
	use->was_reopened = true;
	if (has_changed(t, use, "meanwhile"))
		return;
	queue->counters.reopens++;
	if (pair->is_bounce)
		return;
	ret = pair_need_token(pair);
	if (!ret || ret == -EBUSY)
		return;
	if (handle_is_lost(pair->handle, ENOTCONN))
		pair->is_lost = true;
	else
		give_up_token(queue, t, pair, "the mount has returned and gives no token");
}

void recover_transfer(struct fdmabuf_queue *queue, struct fdmabuf_transfer *t)
{
	for (size_t i = 0; i < t->use_count && !t->error; i++) {
		struct use *use = &t->uses[i];

		if (!use_needs_recovery(use) || use->pair->in_flight)
			continue;
		if (use->pair->is_lost)
			look_for_mount(queue, t, use);
		else if (use->pair->token_has_ended)
			ask_for_new_token(queue, t, use);
		if (!t->error && use->handle != use->pair->handle)
			continue_on_new_mount(queue, t, use);
		/* The broker may have told just now that the server has ended as well. */
		if (use_needs_recovery(use) && !use->deadline)
			queue->has_more_to_do = true;
	}
}

void check_reopened_files(struct fdmabuf_transfer *t)
{
	for (size_t i = 0; i < t->use_count; i++)
		if (t->uses[i].was_reopened && has_changed(t, &t->uses[i], "while it was read"))
			transfer_note_nothing(t, &t->uses[i]);
}
