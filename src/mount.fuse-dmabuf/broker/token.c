/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The names of directions, the same in the log and in status. */
#include "broker/token.h"

const char *token_direction_name(uint32_t direction)
{
	if (direction == TOKEN_BOTH)
		return "read-write";
	return direction == FUSE_DMABUF_TOKEN_READ ? "read" : "write";
}
