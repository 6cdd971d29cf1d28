/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parses the options of commands that list something. */
#include <getopt.h>
#include <stdio.h>

#include "complain.h"
#include "exit-code.h"
#include "json-option.h"

bool parse_json_option(int argc, char **argv, const char *name, const char *usage, bool *as_json,
		       int *code)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (option == 'h') {
			*code = fputs(usage, stdout) < 0 ? EXIT_FAILED : 0;
			return false;
		}
		if (option != 'j') {
			complain("%s: unknown option: see fuse-dmabuf %s --help", argv[optind - 1],
				 name);
			*code = EXIT_BAD_INPUT;
			return false;
		}
		*as_json = true;
	}
	return true;
}
