/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The mount option revoke_on_unlink: a file that loses its last link loses its tokens. */
#ifndef REVOKE_ON_UNLINK_H
#define REVOKE_ON_UNLINK_H

#include "nodes/inode.h"

/* Turns the option on; without it the functions below do nothing. */
void revoke_on_unlink_enable(void);

/* The file whose name is being removed or replaced. */
struct unlinked_file {
	int fd;                 /* O_PATH; -1: there is no file, or the file is unknown */
	bool unknown;           /* the file was not looked up, or the lookup failed */
};

/* To call before the name is removed or replaced. revoke_on_unlink_end() must follow. */
struct unlinked_file revoke_on_unlink_begin(const struct inode *directory, const char *name);

/*
 * To call after the name was removed or replaced, or could not be. Revokes the tokens of the file
 * if it has no link left.
 */
void revoke_on_unlink_end(struct unlinked_file *unlinked);

#endif
