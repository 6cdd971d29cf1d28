/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the command share. */
#ifndef COMMAND_H
#define COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "fuse-dmabuf.h"
#include "safetensors.h"

/* EXIT_SUCCESS is 0. A signal gives 128 and its number. */
enum {
	EXIT_FAILED = 1,	/* something went wrong on the way; the destination may be half written */
	EXIT_BAD_INPUT = 2,	/* usage, file or destination: nothing has been read into the destination */
};

/* One line on standard error: "fuse-dmabuf: …". Returns EXIT_FAILED. */
int complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Bytes of the control character that the text begins with; 0: it does not. Names are the choice of others, and may
 * hold what a terminal obeys. */
size_t control_character(const char *text);

/* ------------------------------------------------------------ load.c, options.c */

struct load_options {
	const char *file;
	const char *into;
	enum fdmabuf_path path;
	uint32_t depth, chunk, mount_wait;	/* 0: the library's choice */
	bool verify, json;
};

int load_command(int argc, char **argv);

/* Returns 0, or the exit code after a message; options->file is NULL after --help. */
int parse_load_options(int argc, char **argv, struct load_options *options);

/* What a load did. */
struct load_result {
	uint64_t bytes;
	uint64_t tensors;
	double seconds, user_seconds, system_seconds;	/* of the reading alone */
	enum fdmabuf_path path;
	const char *reason;
	struct fdmabuf_counters counters;
};

/* The line, or the JSON object, on standard output. Returns the exit code. */
int print_summary(const struct load_options *options, const struct load_result *result);

/* ------------------------------------------------------ status.c, revoke.c */

int status_command(int argc, char **argv);
int revoke_command(int argc, char **argv);

/* ---------------------------------------------------------------- verify.c */

/* Compares the destination, which holds an image of the file, with what an ordinary read gives.
 * Returns the exit code, after a message for the first tensors that differ. */
int verify_tensors(struct fdmabuf_file *file, struct fdmabuf_buffer *buffer,
		   const struct safetensors *table, const char *name);

/* -------------------------------------------------------------- progress.c */

/* A bar on standard error, if that is a terminal. */
void progress_begin(const char *what);
void progress_rename(const char *what);
void progress_show(uint64_t done, uint64_t total);
void progress_end(void);

/* ------------------------------------------------------------- interrupt.c */

/* From then on, SIGINT, SIGTERM and SIGHUP are noted; the second one ends the program at once. */
void catch_signals(void);

/* The signal that came, or 0. */
int caught_signal(void);

#endif
