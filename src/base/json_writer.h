/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes one JSON document to a stream. It places the commas and escapes every
 * string: control characters, quotes, and bytes that are not UTF-8 (each
 * replaced by U+FFFD), so that names taken from a hostile target stay data.
 */
#ifndef LEAKTOP_JSON_WRITER_H
#define LEAKTOP_JSON_WRITER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json_writer;

/* @out is borrowed. Returns NULL when out of memory. */
struct json_writer *json_writer_new(FILE *out);
/* Does not close the stream. Accepts NULL. */
void json_writer_free(struct json_writer *w);

/* Inside an object every value is preceded by json_key(). */
void json_key(struct json_writer *w, const char *name);
void json_object_begin(struct json_writer *w);
void json_object_end(struct json_writer *w);
void json_array_begin(struct json_writer *w);
void json_array_end(struct json_writer *w);
/* NULL writes null. (json_string and json_null are functions of the jansson library.) */
void json_str(struct json_writer *w, const char *s);
void json_u64(struct json_writer *w, uint64_t v);
void json_s64(struct json_writer *w, int64_t v);
/* Not-a-number and infinities write null. */
void json_double(struct json_writer *w, double v);
void json_bool(struct json_writer *w, bool v);
void json_nil(struct json_writer *w);

/* Key and value in one call. */
void json_field_string(struct json_writer *w, const char *name, const char *s);
void json_field_u64(struct json_writer *w, const char *name, uint64_t v);
void json_field_s64(struct json_writer *w, const char *name, int64_t v);
void json_field_double(struct json_writer *w, const char *name, double v);
void json_field_bool(struct json_writer *w, const char *name, bool v);
void json_field_null(struct json_writer *w, const char *name);

#endif
