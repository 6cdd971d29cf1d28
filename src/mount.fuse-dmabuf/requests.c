/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "requests.h"
#include "operations/statx.h"
#include "operations/syncfs.h"
#include "operations/token-requests.h"

void requests_answer(struct fuse_session *session, const struct fuse_buf *request)
{
	int device = fuse_session_fd(session);

	if (!token_requests_answer(device, request->mem, request->size) &&
	    !statx_answer(device, request->mem, request->size) &&
	    !syncfs_answer(device, request->mem, request->size))
		fuse_session_process_buf(session, request);
}
