/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Leaves the answer to INIT as it is, for a libfuse that has no fuse_session_custom_io(). */
#include "transport/init-answer.h"

void init_answer_complete(struct fuse_session *session, const void *request, size_t size,
			  uint32_t accepted, void (*fail)(int error))
{
	(void)session;
	(void)request;
	(void)size;
	(void)accepted;
	(void)fail;
}
