/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The answer to "status". It is made while it is sent, so that it takes no more memory for more tokens. */
#ifndef CONTROL_STATUS_H
#define CONTROL_STATUS_H

#include <jansson.h>

#include "control/control-output.h"

/* Both are kept, not copied. */
void control_status_begin(const char *source, const char *mountpoint);

/* Out of memory: nothing, or a part without a line feed at its end. */
void control_status(struct control_output *output);

/* A string for json_decref(): names may be any bytes, JSON is UTF-8. NULL: out of memory. */
json_t *control_name_as_json(const char *name);

#endif
