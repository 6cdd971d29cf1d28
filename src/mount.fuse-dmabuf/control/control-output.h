/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sends an answer in pieces to a client of the control socket. A client that takes too long, or has
 * closed its connection, gets no more.
 */
#ifndef CONTROL_OUTPUT_H
#define CONTROL_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct control_output {
	int fd;
	int milliseconds_left;  /* for which the server still waits for the client, in all */
	bool failed;
	size_t used;
	char buffer[16384];
};

/* Begins an answer to @fd. The server waits for the client for @milliseconds in all. */
void control_output_begin(struct control_output *output, int fd, int milliseconds);

void control_output_add(struct control_output *output, const char *text, size_t length);

/*
 * Adds an object and frees it. If @object is NULL, because memory ran out, nothing more is sent.
 * @flags are those of json_dumps(), for instance JSON_EMBED.
 */
void control_output_add_json(struct control_output *output, json_t *object, size_t flags);

/* Sends what is left in the buffer. */
void control_output_end(struct control_output *output);

/* Returns true if nothing more is sent, so that the caller need not make the rest of the answer. */
bool control_output_has_failed(const struct control_output *output);

#endif
