/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes a string from a target safe to print on a terminal. */
#ifndef LEAKTOP_ESCAPE_H
#define LEAKTOP_ESCAPE_H

#include <stddef.h>
#include <stdio.h>

/*
 * Writes @s to @out: control characters (C0, DEL, C1) as \n, \t or \xNN,
 * backslash as \\, bytes that are not valid UTF-8 as \xNN, all else as it is.
 * At most @max_bytes of @s are read; a longer string ends in "...".
 */
void escape_terminal(FILE *out, const char *s, size_t max_bytes);

/*
 * Length in bytes (1-4) of the valid UTF-8 sequence at @s, 0 if there is none.
 * Reads no further than a NUL byte.
 */
size_t utf8_sequence(const unsigned char *s);

#endif
