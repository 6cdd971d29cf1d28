/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The options of "fuse-dmabuf load". */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "fuse-dmabuf.h"

struct load_options {
	const char *file;
	const char *into;			/* as for fdmabuf_buffer_allocate() */
	enum fdmabuf_path path;
	/* As in fdmabuf_queue_options; 0: its default. */
	uint32_t depth, chunk, mount_wait, copy_threads;
	enum fdmabuf_proof proof;
	bool verify, json;
};

/*
 * Fills @options, which the caller has zeroed; its strings are those of @argv. Returns 0, or the
 * exit code after a message. After --help the usage is printed and options->file is NULL.
 */
int parse_load_options(int argc, char **argv, struct load_options *options);

#endif
