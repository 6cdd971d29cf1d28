/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Structs that begin with their size, and may be those of another version of the header. */
#ifndef FDMABUF_STRUCTS_H
#define FDMABUF_STRUCTS_H

#include <stddef.h>

/*
 * Copies the caller's struct, which begins with its size_t size, into the library's of @own_size
 * bytes. Members that the caller's version lacks become zero. Returns -E2BIG if the caller's
 * version is newer and has anything but zeros in the members that the library lacks; -EINVAL if the
 * size is too small.
 */
int copy_struct_from_caller(void *own, size_t own_size, const void *callers);

/*
 * Copies the library's struct to the caller's, as far as the caller's size goes, which stays as it
 * is. Members that only the caller's version has become zero. Returns -EINVAL if the size is too
 * small.
 */
int copy_struct_to_caller(void *callers, const void *own, size_t own_size);

#endif
