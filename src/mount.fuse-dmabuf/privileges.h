/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PRIVILEGES_H
#define PRIVILEGES_H

#include <stdbool.h>

/* Gives up what the server does not need, for good. False: explained in the log. */
bool privileges_drop(void);

/* Every node that the kernel knows holds a descriptor here: as many as the system allows. */
void privileges_raise_file_limit(void);

#endif
