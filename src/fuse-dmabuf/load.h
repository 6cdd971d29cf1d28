/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command "fuse-dmabuf load". */
#ifndef LOAD_H
#define LOAD_H

/* Runs the command with its own arguments, argv[0] being its name. Returns the exit code. */
int load_command(int argc, char **argv);

#endif
