/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The options of commands that list something. */
#ifndef JSON_OPTION_H
#define JSON_OPTION_H

#include <stdbool.h>

/*
 * Parses --json and --help of the command @name, and leaves optind at its first argument. Returns
 * true if the command goes on; else *code is its exit code, after the usage or a message.
 */
bool parse_json_option(int argc, char **argv, const char *name, const char *usage, bool *as_json,
		       int *code);

#endif
