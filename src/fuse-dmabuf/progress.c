/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Draws the progress bar. */
#include <stdio.h>
#include <unistd.h>

#include "common/clock.h"
#include "progress.h"

#define BAR_WIDTH 40		/* columns */
#define DRAW_INTERVAL 100	/* milliseconds between two drawings */

static const char *task_name;	/* NULL: no bar is shown */
static int64_t start_time;	/* both from monotonic_milliseconds() */
static int64_t last_drawn;	/* 0: not drawn yet */

void progress_begin(const char *task)
{
	task_name = isatty(STDERR_FILENO) ? task : NULL;
	start_time = monotonic_milliseconds();
	last_drawn = 0;
}

void progress_rename(const char *task)
{
	if (task_name)
		task_name = task;
}

void progress_show(uint64_t done, uint64_t total)
{
	static const char full[] = "########################################";
	int64_t time = monotonic_milliseconds();
	int width;

	if (!task_name || (done < total && time - last_drawn < DRAW_INTERVAL))
		return;
	last_drawn = time;
	width = total ? (double)done / total * BAR_WIDTH : BAR_WIDTH;
	fprintf(stderr, "\r%s [%-*.*s] %3d%%  %.1f of %.1f MiB  %.0f MiB/s\033[K", task_name,
		BAR_WIDTH, width, full, width * 100 / BAR_WIDTH, done / 1048576.0,
		total / 1048576.0,
		time > start_time ? done / 1048576.0 * 1000 / (time - start_time) : 0);
	fflush(stderr);
}

void progress_end(void)
{
	if (task_name && last_drawn > 0)
		fputs("\r\033[K", stderr);
	task_name = NULL;
}
