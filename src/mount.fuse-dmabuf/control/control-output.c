/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Buffers an answer, and sends it as fast as the client takes it. */
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "control/control-output.h"

void control_output_begin(struct control_output *output, int fd, int milliseconds)
{
	output->fd = fd;
	output->milliseconds_left = milliseconds;
	output->failed = false;
	output->used = 0;
}

/*
 * Waits until the client can take more. Returns false if its time is over. The time that the server
 * takes to make the answer does not count.
 */
static bool wait_for_room(struct control_output *output)
{
	struct pollfd poll_fd = { .fd = output->fd, .events = POLLOUT };
	int64_t begun = monotonic_milliseconds();
	bool room = output->milliseconds_left > 0 &&
		    poll(&poll_fd, 1, output->milliseconds_left) > 0;

	output->milliseconds_left -= (int)(monotonic_milliseconds() - begun);
	return room;
}

static bool send_all(struct control_output *output)
{
	const char *from = output->buffer;
	size_t left = output->used;
	ssize_t sent;

	for (; left; left -= (size_t)sent, from += sent) {
		if (!wait_for_room(output))
			return false;
		sent = send(output->fd, from, left, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0)
			return false;
	}
	output->used = 0;
	return true;
}

void control_output_add(struct control_output *output, const char *text, size_t length)
{
	size_t part;

	for (; length && !output->failed; text += part, length -= part) {
		if (output->used == sizeof(output->buffer) && !send_all(output)) {
			output->failed = true;
			return;
		}
		part = sizeof(output->buffer) - output->used;
		if (part > length)
			part = length;
		memcpy(output->buffer + output->used, text, part);
		output->used += part;
	}
}

static int add(const char *text, size_t length, void *data)
{
	struct control_output *output = data;

	control_output_add(output, text, length);
	return output->failed ? -1 : 0;
}

void control_output_add_json(struct control_output *output, json_t *object, size_t flags)
{
	if (!object || json_dump_callback(object, add, output, JSON_COMPACT | flags))
		output->failed = true;
	json_decref(object);
}

void control_output_end(struct control_output *output)
{
	if (!output->failed)
		output->failed = !send_all(output);
}

bool control_output_has_failed(const struct control_output *output)
{
	return output->failed;
}
