/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>
#include <unistd.h>

#include "common/clock.h"
#include "progress.h"

#define BAR_WIDTH 40
#define INTERVAL 100	/* milliseconds between two pictures */

static const char *task;
static int64_t began, shown;	/* by monotonic_milliseconds() */

void progress_begin(const char *what)
{
	task = isatty(STDERR_FILENO) ? what : NULL;
	began = monotonic_milliseconds();
	shown = 0;
}

void progress_rename(const char *what)
{
	if (task)
		task = what;
}

void progress_show(uint64_t done, uint64_t total)
{
	static const char full[] = "########################################";
	int64_t time = monotonic_milliseconds();
	int width;

	if (!task || (done < total && time - shown < INTERVAL))
		return;
	shown = time;
	width = total ? (double)done / total * BAR_WIDTH : BAR_WIDTH;
	fprintf(stderr, "\r%s [%-*.*s] %3d%%  %.1f of %.1f MiB  %.0f MiB/s\033[K", task, BAR_WIDTH, width,
		full, width * 100 / BAR_WIDTH, done / 1048576.0, total / 1048576.0,
		time > began ? done / 1048576.0 * 1000 / (time - began) : 0);
	fflush(stderr);
}

void progress_end(void)
{
	if (task && shown > 0)
		fputs("\r\033[K", stderr);
	task = NULL;
}
