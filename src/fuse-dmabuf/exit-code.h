/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The exit codes of fuse-dmabuf besides 0 and those of signals, which are 128 and the number. */
#ifndef EXIT_CODE_H
#define EXIT_CODE_H

enum {
	EXIT_FAILED = 1,	/* failed on the way: the destination may be half written */
	EXIT_BAD_INPUT = 2,	/* bad usage, file or destination: nothing was read into it */
};

#endif
