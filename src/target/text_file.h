/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads a whole small file: of /proc, or one that a container runtime keeps. */
#ifndef LEAKTOP_TEXT_FILE_H
#define LEAKTOP_TEXT_FILE_H

#include <stddef.h>

/*
 * The content of the regular file @path, with a NUL byte behind it, to be freed
 * by the caller. Does not follow a symbolic link in the last component and does
 * not wait on a FIFO. Returns 0 or negative errno: -EFBIG if there is more than
 * @max_bytes, -EINVAL if it is no regular file. @size_bytes may be NULL.
 */
int text_file_read(const char *path, size_t max_bytes, char **out, size_t *size_bytes);

#endif
