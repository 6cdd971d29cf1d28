/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers the requests of the control socket, which fuse-dmabuf-control(7) describes. */
#ifndef CONTROL_ANSWER_H
#define CONTROL_ANSWER_H

#include <stddef.h>
#include <sys/socket.h>

#include "control/control-output.h"

/*
 * Adds the answer, a line of JSON, to @output. If memory runs out, @output gets nothing, or a part
 * of the line without its line feed.
 */
void control_answer(const char *request, size_t length, const struct ucred *peer,
		    struct control_output *output);

/*
 * Returns the line of JSON that tells a client why its request failed. The caller frees it. Returns
 * NULL if memory runs out.
 */
char *control_answer_error(const char *reason);

#endif
