/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command "fuse-dmabuf revoke". */
#ifndef REVOKE_H
#define REVOKE_H

/* Runs the command with its own arguments, argv[0] being its name. Returns the exit code. */
int revoke_command(int argc, char **argv);

#endif
