/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The capabilities of the server. */
#ifndef PRIVILEGES_H
#define PRIVILEGES_H

#include <linux/capability.h>
#include <stdbool.h>
#include <stdint.h>

#include "identity/identity.h"

/* What a caller may have, and a thread has only while it acts for a caller who has it. */
#define PRIVILEGES_OF_CALLERS \
	(CAPABILITY(CAP_CHOWN) | CAPABILITY(CAP_DAC_OVERRIDE) | CAPABILITY(CAP_DAC_READ_SEARCH) | \
	 CAPABILITY(CAP_FOWNER) | CAPABILITY(CAP_FSETID) | CAPABILITY(CAP_MKNOD) | CAPABILITY(CAP_SETFCAP) | \
	 CAPABILITY(CAP_SYS_ADMIN) | CAPABILITY(CAP_SYS_RESOURCE))

/* With these a file can be read and written whatever its mode says. */
#define PRIVILEGES_OF_ACCESS (CAPABILITY(CAP_DAC_OVERRIDE) | CAPABILITY(CAP_DAC_READ_SEARCH))

/* Gives up what the server does not need, for good. False: explained in the log. */
bool privileges_drop(void);

/* Of the calling thread, and of those that it starts while it does without. */
void privileges_suspend(void);
void privileges_resume(void);

/* The effective capabilities of the calling thread. Setting them fails with errno if they are not permitted ones. */
uint64_t privileges_effective(void);
bool privileges_set_effective(uint64_t capabilities);

#endif
