/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes the answer to the request "status". The answer is made while it is sent, so that more
 * tokens do not take more memory.
 */
#ifndef CONTROL_STATUS_H
#define CONTROL_STATUS_H

#include <jansson.h>

#include "control/control-output.h"

/*
 * Sets the names that the answer tells. They are not copied: they must last as long as requests
 * come.
 */
void control_status_begin(const char *source, const char *mountpoint);

/*
 * Adds the answer to @output. If memory runs out, @output gets nothing, or a part of the answer
 * without its line feed.
 */
void control_status(struct control_output *output);

/*
 * Returns the name as a JSON string, which the caller frees with json_decref(), or NULL if memory
 * runs out. JSON is UTF-8, but names may have any bytes: in a name that is not UTF-8 all bytes
 * beyond ASCII become question marks.
 */
json_t *control_name_as_json(const char *name);

#endif
