/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Comparison of a destination with its file, for --verify. */
#ifndef VERIFY_H
#define VERIFY_H

#include "fuse-dmabuf.h"
#include "safetensors.h"

/*
 * Compares the tensors in @buffer, which holds an image of the file, with ordinary reads of @file.
 * @name is the file's, for messages. Returns 0 if all are equal, else the exit code, after a
 * message for each of the first tensors that differ.
 */
int verify_tensors(struct fdmabuf_file *file, struct fdmabuf_buffer *buffer,
		   const struct safetensors *table, const char *name);

#endif
