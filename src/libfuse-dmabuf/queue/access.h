/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CPU access to buffers whose pages the CPU or direct I/O uses. */
#ifndef FDMABUF_ACCESS_H
#define FDMABUF_ACCESS_H

#include "queue/transfer.h"

/*
 * Begins the access that a request without a token needs, once for a use. Returns a negative errno
 * if the exporter refuses.
 */
int access_need(struct fdmabuf_transfer *t, struct use *use);

/* Ends it for all uses, when no request is in flight, so that the owner of the buffer sees all. */
void access_end(struct fdmabuf_transfer *t);

#endif
