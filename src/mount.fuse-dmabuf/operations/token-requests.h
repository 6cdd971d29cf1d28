/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers requests about tokens, which libfuse does not know. */
#ifndef TOKEN_REQUESTS_H
#define TOKEN_REQUESTS_H

#include <stdbool.h>
#include <stddef.h>

/* Answers the request on the device it came from. Returns false if it is not about tokens. */
bool token_requests_answer(int device, const void *request, size_t size);

#endif
