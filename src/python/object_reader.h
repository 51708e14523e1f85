/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads single objects of a CPython process: strings, dictionaries, names of types. */
#ifndef LEAKTOP_OBJECT_READER_H
#define LEAKTOP_OBJECT_READER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "python/object_layout.h"

/* A str as UTF-8, cut to fit @size at a character (lone surrogates and NUL as U+FFFD).
 * 0, -EINVAL: no compact str; or what memory_read() says. */
int object_read_string(pid_t pid, const struct object_layout *l, uint64_t address, char *buf,
		       size_t size);

/* The value of the ASCII @key in a dict with a table of its own (not split): its address.
 * 0, -ENOENT, -EINVAL: no dict; or what memory_read() says. */
int object_find_item(pid_t pid, const struct object_layout *l, uint64_t dict, const char *key,
		     uint64_t *value);

/* The name of the type at @address, of which @head are the first TYPE_HEAD_BYTES:
 * "module.Qualname", without module if that is builtins. 0 or negative errno. */
int object_read_type_name(pid_t pid, const struct object_layout *l, uint64_t address,
			  const uint8_t *head, char *buf, size_t size);

#endif
