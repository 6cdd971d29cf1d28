/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command "fuse-dmabuf exporters". */
#ifndef EXPORTERS_H
#define EXPORTERS_H

/* Runs the command with its own arguments, argv[0] being its name. Returns the exit code. */
int exporters_command(int argc, char **argv);

#endif
