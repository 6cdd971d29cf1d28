/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The program fuse-dmabuf: finds the command and runs it. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/streams.h"
#include "complain.h"
#include "exit-code.h"
#include "exporters.h"
#include "load.h"
#include "revoke.h"
#include "status.h"

static const char usage[] =
	"usage: fuse-dmabuf COMMAND [ARGUMENTS]\n"
	"\n"
	"  load        read a safetensors file into memory of a device\n"
	"  exporters   list the memory that this machine has for buffers\n"
	"  status      list the tokens of mounts\n"
	"  revoke      revoke tokens of a mount\n"
	"\n"
	"  -h, --help     this text; \"fuse-dmabuf COMMAND --help\" explains a command\n"
	"  -V, --version  the version\n";

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "exporters", exporters_command },
	{ "load", load_command },
	{ "revoke", revoke_command },
	{ "status", status_command },
};

static bool is_option(const char *argument, const char *short_form, const char *long_form)
{
	return !strcmp(argument, short_form) || !strcmp(argument, long_form);
}

static int run(int argc, char **argv)
{
	if (argc < 2) {
		fputs(usage, stderr);
		return EXIT_BAD_INPUT;
	}
	if (is_option(argv[1], "-h", "--help"))
		return fputs(usage, stdout) < 0;
	if (is_option(argv[1], "-V", "--version"))
		return printf("fuse-dmabuf %s\n", FUSE_DMABUF_VERSION) < 0;
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	complain("no command \"%s\": see fuse-dmabuf --help", argv[1]);
	return EXIT_BAD_INPUT;
}

int main(int argc, char **argv)
{
	int code;

	/* For reading only: output to a closed stream must fail and be reported, not be lost. */
	open_missing_streams(O_RDONLY);
	code = run(argc, argv);
	/* Buffered output is written only now, and may fail. */
	if ((fflush(stdout) || ferror(stdout)) && !code)
		return complain("standard output cannot be written: %s", strerror(errno));
	return code;
}
