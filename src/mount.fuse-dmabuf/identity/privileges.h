/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Capabilities of the server and its threads. */
#ifndef PRIVILEGES_H
#define PRIVILEGES_H

#include <linux/capability.h>
#include <stdbool.h>
#include <stdint.h>

#include "identity/identity.h"

/* Capabilities of callers. A thread has one only while it acts for a caller who has it. */
#define PRIVILEGES_OF_CALLERS \
	(CAPABILITY(CAP_CHOWN) | CAPABILITY(CAP_DAC_OVERRIDE) | CAPABILITY(CAP_DAC_READ_SEARCH) | \
	 CAPABILITY(CAP_FOWNER) | CAPABILITY(CAP_FSETID) | CAPABILITY(CAP_MKNOD) | \
	 CAPABILITY(CAP_SETFCAP) | \
	 CAPABILITY(CAP_SYS_ADMIN) | CAPABILITY(CAP_SYS_RESOURCE))

/* Capabilities to read and write a file in spite of its mode. */
#define PRIVILEGES_OF_ACCESS (CAPABILITY(CAP_DAC_OVERRIDE) | CAPABILITY(CAP_DAC_READ_SEARCH))

/*
 * Gives up the capabilities that the server does not need, for good. Returns false after the log
 * has explained the reason.
 */
bool privileges_drop(void);

/*
 * Takes all effective capabilities from the calling thread, and so from threads that it starts
 * before privileges_resume().
 */
void privileges_suspend(void);

/* Gives the calling thread the server's own capabilities again. */
void privileges_resume(void);

/* Returns the effective capabilities of the calling thread. */
uint64_t privileges_effective(void);

/*
 * Sets the effective capabilities of the calling thread; those that are not permitted are left out.
 * Returns false with errno set if the kernel refuses.
 */
bool privileges_set_effective(uint64_t capabilities);

#endif
