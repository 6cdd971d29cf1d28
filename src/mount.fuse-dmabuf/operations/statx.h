/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel asks so when somebody wants to know when a file was made; libfuse does not know the request. */
#ifndef STATX_H
#define STATX_H

#include <stdbool.h>
#include <stddef.h>

/* False: it is another request. */
bool statx_answer(int device, const void *request, size_t size);

#endif
