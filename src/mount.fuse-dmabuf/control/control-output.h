/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is sent to a client of the control socket, in pieces. One that takes too long, or has gone, gets no more. */
#ifndef CONTROL_OUTPUT_H
#define CONTROL_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct control_output {
	int fd;
	int patience;           /* milliseconds that it may still be waited for, all together */
	bool failed;
	size_t used;
	char buffer[16384];
};

void control_output_begin(struct control_output *output, int fd, int milliseconds);

void control_output_add(struct control_output *output, const char *text, size_t length);

/* Takes over the object; NULL: out of memory, nothing more is sent. Flags as json_dumps() has them, JSON_EMBED. */
void control_output_add_json(struct control_output *output, json_t *object, size_t flags);

/* Sends what is left. */
void control_output_end(struct control_output *output);

/* Nothing is sent any more: no need to make it. */
bool control_output_failed(const struct control_output *output);

#endif
