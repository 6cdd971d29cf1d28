/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command "fuse-dmabuf status". */
#ifndef STATUS_H
#define STATUS_H

/* Runs the command with its own arguments, argv[0] being its name. Returns the exit code. */
int status_command(int argc, char **argv);

#endif
