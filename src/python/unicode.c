/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "python/unicode.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "events.h"

#define CODE_POINT_MAX 0x10ffff
#define REPLACEMENT 0xfffd
#define MARK "..." /* that something is missing */

/*
 * PyASCIIObject.state of Include/cpython/unicodeobject.h, the same in all builds with
 * a GIL from 3.8 to 3.15: interned:2, kind:3, compact:1, ascii:1. Of what follows,
 * CPython sets little and the rest is whatever lay there before.
 */
static unsigned int state_kind(uint32_t state)
{
	return state >> 2 & 7;
}

static bool state_is_compact(uint32_t state)
{
	return state >> 5 & 1;
}

static bool state_is_ascii(uint32_t state)
{
	return state >> 6 & 1;
}

static bool is_sane(const struct event_string *s, size_t size)
{
	unsigned int kind = state_kind(s->state);

	if (kind != 1 && kind != 2 && kind != 4)
		return false;
	if (!state_is_compact(s->state) || (state_is_ascii(s->state) && kind != 1))
		return false;
	if (s->bytes > size || s->bytes > (uint64_t)s->length * kind)
		return false;
	return !s->length || s->bytes >= kind;
}

static uint32_t read_code_point(const uint8_t *data, unsigned int kind)
{
	uint16_t two;
	uint32_t four;

	if (kind == 1)
		return *data;
	if (kind == 2) {
		memcpy(&two, data, sizeof(two));
		return two;
	}
	memcpy(&four, data, sizeof(four));
	return four;
}

static char *put_utf8(char *to, uint32_t c)
{
	if (!c || (c >= 0xd800 && c <= 0xdfff))
		c = REPLACEMENT;
	if (c < 0x80) {
		*to++ = (char)c;
		return to;
	}
	if (c < 0x800) {
		*to++ = (char)(0xc0 | c >> 6);
	} else if (c < 0x10000) {
		*to++ = (char)(0xe0 | c >> 12);
		*to++ = (char)(0x80 | (c >> 6 & 0x3f));
	} else {
		*to++ = (char)(0xf0 | c >> 18);
		*to++ = (char)(0x80 | (c >> 12 & 0x3f));
		*to++ = (char)(0x80 | (c >> 6 & 0x3f));
	}
	*to++ = (char)(0x80 | (c & 0x3f));
	return to;
}

char *unicode_to_utf8(const struct event_string *s, const uint8_t *data, size_t size)
{
	uint32_t limit = state_is_ascii(s->state) ? 0x7f : CODE_POINT_MAX;
	unsigned int kind = state_kind(s->state);
	char *text, *to;

	if (!is_sane(s, size))
		return strdup("?");
	/* NUL grows most, to three bytes. */
	to = text = malloc(3 * (size_t)s->bytes + sizeof(MARK));
	if (!text)
		return NULL;
	for (size_t i = 0; s->bytes - i >= kind; i += kind) {
		uint32_t c = read_code_point(data + i, kind);

		if (c > limit) {
			free(text);
			return strdup("?");
		}
		to = put_utf8(to, c);
	}
	strcpy(to, s->bytes < (uint64_t)s->length * kind ? MARK : "");
	return text;
}
