/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <sched.h>
#include <stdbool.h>
#include <sys/types.h>

#include "affinity.h"
#include "processes.h"

/* After so many requests of one program, and none of another, it is looked where it runs; */
#define ENOUGH 32u

/* and again after so many more, because the scheduler may have moved it. A look costs what some requests do. */
#define AGAIN 256u

static cpu_set_t processors;
static bool usable;

static _Thread_local struct {
	uint32_t pid;
	unsigned int requests;
	bool bound;
} asker = { .bound = true };    /* as the thread was that made this one, perhaps */

void affinity_begin(void)
{
	usable = !sched_getaffinity(0, sizeof(processors), &processors) && CPU_COUNT(&processors) > 1;
}

void affinity_leave(void)
{
	if (usable && asker.bound)
		sched_setaffinity(0, sizeof(processors), &processors);
	asker.bound = false;
	asker.requests = 0;
}

static void bind_to(int processor)
{
	cpu_set_t one;

	if (processor < 0 || processor >= CPU_SETSIZE || !CPU_ISSET(processor, &processors))
		return;
	CPU_ZERO(&one);
	CPU_SET(processor, &one);
	asker.bound |= !sched_setaffinity(0, sizeof(one), &one);
}

void affinity_follow(uint32_t pid)
{
	if (!usable || !pid)
		return;
	if (pid != asker.pid)
		affinity_leave();
	asker.pid = pid;
	if (++asker.requests % AGAIN == ENOUGH)
		bind_to(process_processor((pid_t)pid));
}
