/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counts the forks that led to this process. */
#include <pthread.h>

#include "base/fork.h"

static unsigned count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void note_fork(void)
{
	count++;
}

static void install(void)
{
	/* It fails only without memory. Then a child is not told from its parent. */
	pthread_atfork(NULL, NULL, note_fork);
}

unsigned fork_count(void)
{
	pthread_once(&once, install);
	return count;
}
