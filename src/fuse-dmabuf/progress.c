/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "progress.h"

#define BAR_WIDTH 40
#define INTERVAL 0.1	/* seconds between two pictures */

static const char *task;
static double began, shown;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

void progress_begin(const char *what)
{
	task = isatty(STDERR_FILENO) ? what : NULL;
	began = now();
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
	double time = now();
	int width;

	if (!task || (done < total && time - shown < INTERVAL))
		return;
	shown = time;
	width = total ? (double)done / total * BAR_WIDTH : BAR_WIDTH;
	fprintf(stderr, "\r%s [%-*.*s] %3d%%  %.1f of %.1f MiB  %.0f MiB/s\033[K", task, BAR_WIDTH, width,
		full, width * 100 / BAR_WIDTH, done / 1048576.0, total / 1048576.0,
		time > began ? done / 1048576.0 / (time - began) : 0);
	fflush(stderr);
}

void progress_end(void)
{
	if (task && shown > 0)
		fputs("\r\033[K", stderr);
	task = NULL;
}
