/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From the raw contents of a Python str to UTF-8. */
#ifndef LEAKTOP_UNICODE_H
#define LEAKTOP_UNICODE_H

#include <stddef.h>
#include <stdint.h>

struct event_string;

/*
 * The string @s whose contents, as far as they were copied, are at @data (room for
 * @size bytes). Surrogates and NUL become U+FFFD; of a part, "..." follows; "?" if
 * it is no string. Returns UTF-8 for the caller to free, NULL: out of memory.
 */
char *unicode_to_utf8(const struct event_string *s, const uint8_t *data, size_t size);

#endif
