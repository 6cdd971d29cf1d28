/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Warnings: what a person should know, though no call fails. */
#ifndef FDMABUF_WARNING_H
#define FDMABUF_WARNING_H

/* Gives one line, without a newline, to the function of fdmabuf_on_warning(). */
void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
