/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is asked over the control socket, and the answers: fuse-dmabuf-control(7). */
#ifndef CONTROL_ANSWER_H
#define CONTROL_ANSWER_H

#include <stddef.h>
#include <sys/socket.h>

#include "control/control-output.h"

/* A line of JSON; out of memory, nothing or a part without a line feed. */
void control_answer(const char *request, size_t length, const struct ucred *peer, struct control_output *output);

/* The same for free(); NULL: out of memory. */
char *control_answer_error(const char *reason);

#endif
