/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One flag places every comma: it is set after a value and cleared after an
 * opening bracket and after a key. So nothing is kept per level, and the depth
 * has no limit.
 */
#include "base/json_writer.h"

#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>

#include "base/escape.h"

struct json_writer {
	FILE *out;
	locale_t c_locale; /* the decimal point of JSON is a point in every language */
	bool need_comma;
};

struct json_writer *json_writer_new(FILE *out)
{
	struct json_writer *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->out = out;
	w->c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	if (!w->c_locale) {
		free(w);
		return NULL;
	}
	return w;
}

void json_writer_free(struct json_writer *w)
{
	if (!w)
		return;
	freelocale(w->c_locale);
	free(w);
}

static void value_begin(struct json_writer *w)
{
	if (w->need_comma)
		putc(',', w->out);
	w->need_comma = true;
}

static void bracket_begin(struct json_writer *w, char bracket)
{
	value_begin(w);
	putc(bracket, w->out);
	w->need_comma = false;
}

static void bracket_end(struct json_writer *w, char bracket)
{
	putc(bracket, w->out);
	w->need_comma = true;
}

void json_object_begin(struct json_writer *w)
{
	bracket_begin(w, '{');
}

void json_object_end(struct json_writer *w)
{
	bracket_end(w, '}');
}

void json_array_begin(struct json_writer *w)
{
	bracket_begin(w, '[');
}

void json_array_end(struct json_writer *w)
{
	bracket_end(w, ']');
}

static void put_ascii(FILE *out, unsigned char c)
{
	if (c == '"' || c == '\\')
		fprintf(out, "\\%c", c);
	else if (c == '\n')
		fputs("\\n", out);
	else if (c == '\t')
		fputs("\\t", out);
	else if (c < 0x20 || c == 0x7f)
		fprintf(out, "\\u%04x", c);
	else
		putc(c, out);
}

static void put_quoted(FILE *out, const char *s)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t length;

	putc('"', out);
	for (; *p; p += length ? length : 1) {
		length = utf8_sequence(p);
		if (length == 0)
			fputs("\\ufffd", out);
		else if (length == 1)
			put_ascii(out, *p);
		else if (p[0] == 0xc2 && p[1] < 0xa0) /* C1: CSI is one of them */
			fprintf(out, "\\u%04x", p[1]);
		else
			fwrite(p, 1, length, out);
	}
	putc('"', out);
}

void json_key(struct json_writer *w, const char *name)
{
	value_begin(w);
	put_quoted(w->out, name);
	putc(':', w->out);
	w->need_comma = false;
}

void json_str(struct json_writer *w, const char *s)
{
	value_begin(w);
	if (s)
		put_quoted(w->out, s);
	else
		fputs("null", w->out);
}

void json_u64(struct json_writer *w, uint64_t v)
{
	value_begin(w);
	fprintf(w->out, "%" PRIu64, v);
}

void json_s64(struct json_writer *w, int64_t v)
{
	value_begin(w);
	fprintf(w->out, "%" PRId64, v);
}

/* The shorter of 15 and 17 digits that reads back as the same number. */
void json_double(struct json_writer *w, double v)
{
	char text[32];
	locale_t previous;

	value_begin(w);
	if (!isfinite(v)) {
		fputs("null", w->out);
		return;
	}
	previous = uselocale(w->c_locale);
	snprintf(text, sizeof(text), "%.15g", v);
	if (strtod(text, NULL) != v)
		snprintf(text, sizeof(text), "%.17g", v);
	uselocale(previous);
	fputs(text, w->out);
}

void json_bool(struct json_writer *w, bool v)
{
	value_begin(w);
	fputs(v ? "true" : "false", w->out);
}

void json_nil(struct json_writer *w)
{
	value_begin(w);
	fputs("null", w->out);
}

void json_field_string(struct json_writer *w, const char *name, const char *s)
{
	json_key(w, name);
	json_str(w, s);
}

void json_field_u64(struct json_writer *w, const char *name, uint64_t v)
{
	json_key(w, name);
	json_u64(w, v);
}

void json_field_s64(struct json_writer *w, const char *name, int64_t v)
{
	json_key(w, name);
	json_s64(w, v);
}

void json_field_double(struct json_writer *w, const char *name, double v)
{
	json_key(w, name);
	json_double(w, v);
}

void json_field_bool(struct json_writer *w, const char *name, bool v)
{
	json_key(w, name);
	json_bool(w, v);
}

void json_field_null(struct json_writer *w, const char *name)
{
	json_key(w, name);
	json_nil(w);
}
