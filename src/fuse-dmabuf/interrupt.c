/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Notes the signals that interrupt a load. */
#include <signal.h>
#include <stddef.h>

#include "interrupt.h"

static volatile sig_atomic_t caught;

static void note_signal(int signal)
{
	caught = signal;
}

void catch_signals(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	/*
	 * SA_RESETHAND lets the second signal end the program. SA_RESTART is missing so that a
	 * signal also ends the wait for requests.
	 */
	struct sigaction action = { .sa_handler = note_signal, .sa_flags = SA_RESETHAND };

	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		sigaction(signals[i], &action, NULL);
}

int caught_signal(void)
{
	return caught;
}
