/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/escape.h"

#include <stdbool.h>

static bool in_range(unsigned char c, unsigned char low, unsigned char high)
{
	return c >= low && c <= high;
}

static bool is_tail(unsigned char c)
{
	return in_range(c, 0x80, 0xbf);
}

/*
 * The well-formed sequences of the Unicode standard, table 3-7: the second
 * byte's narrower ranges exclude overlong forms, surrogates and all beyond
 * U+10FFFF. The && chains stop at a NUL, which is in none of the ranges.
 */
size_t utf8_sequence(const unsigned char *s)
{
	unsigned char low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
	unsigned char high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;

	if (in_range(s[0], 0x01, 0x7f))
		return 1;
	if (in_range(s[0], 0xc2, 0xdf) && is_tail(s[1]))
		return 2;
	if (in_range(s[0], 0xe0, 0xef) && in_range(s[1], low, high) && is_tail(s[2]))
		return 3;
	if (in_range(s[0], 0xf0, 0xf4) && in_range(s[1], low, high) && is_tail(s[2]) &&
	    is_tail(s[3]))
		return 4;
	return 0;
}

static bool is_control(const unsigned char *s)
{
	return s[0] < 0x20 || s[0] == 0x7f || (s[0] == 0xc2 && in_range(s[1], 0x80, 0x9f));
}

static void put_escaped(FILE *out, const unsigned char *s, size_t length)
{
	if (*s == '\n')
		fputs("\\n", out);
	else if (*s == '\t')
		fputs("\\t", out);
	else
		for (size_t i = 0; i < length; i++)
			fprintf(out, "\\x%02x", s[i]);
}

void escape_terminal(FILE *out, const char *s, size_t max_bytes)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t left = max_bytes, step;

	for (; *p; p += step, left -= step) {
		size_t length = utf8_sequence(p);

		step = length ? length : 1;
		if (step > left) {
			fputs("...", out);
			return;
		}
		if (!length || is_control(p))
			put_escaped(out, p, step);
		else if (*p == '\\')
			fputs("\\\\", out);
		else
			fwrite(p, 1, length, out);
	}
}
