/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/json_writer.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *text;
static size_t size;
static FILE *out;
static struct json_writer *w;

static int begin(void **state)
{
	(void)state;
	out = open_memstream(&text, &size);
	w = json_writer_new(out);
	return w ? 0 : -1;
}

static int end(void **state)
{
	(void)state;
	json_writer_free(w);
	fclose(out);
	free(text);
	return 0;
}

static void commas_and_nesting(void **state)
{
	(void)state;
	json_object_begin(w);
	json_key(w, "a");
	json_array_begin(w);
	json_array_end(w);
	json_key(w, "b");
	json_array_begin(w);
	json_u64(w, 1);
	json_array_begin(w);
	json_s64(w, -2);
	json_array_end(w);
	json_object_begin(w);
	json_object_end(w);
	json_object_begin(w);
	json_field_bool(w, "t", true);
	json_field_bool(w, "f", false);
	json_object_end(w);
	json_nil(w);
	json_array_end(w);
	json_field_null(w, "c");
	json_field_string(w, "d", NULL);
	json_object_end(w);
	fflush(out);
	assert_string_equal(text, "{\"a\":[],\"b\":[1,[-2],{},{\"t\":true,\"f\":false},null],"
				  "\"c\":null,\"d\":null}");
}

static void numbers(void **state)
{
	(void)state;
	json_array_begin(w);
	json_u64(w, UINT64_MAX);
	json_s64(w, INT64_MIN);
	json_double(w, 0.1);
	json_double(w, 12345.6);
	json_double(w, 1.0 / 3);
	json_double(w, -2);
	json_double(w, 1e300);
	json_double(w, NAN);
	json_double(w, INFINITY);
	json_double(w, -INFINITY);
	json_array_end(w);
	fflush(out);
	assert_string_equal(text, "[18446744073709551615,-9223372036854775808,0.1,12345.6,"
				  "0.33333333333333331,-2,1e+300,null,null,null]");
}

/* Skipped where no language with a decimal comma is installed. */
static void decimal_point_in_any_language(void **state)
{
	static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "ru_RU.UTF-8"};
	const char *found = NULL;

	(void)state;
	for (size_t i = 0; !found && i < sizeof(names) / sizeof(names[0]); i++)
		found = setlocale(LC_ALL, names[i]);
	if (!found)
		skip();
	json_double(w, 2.5);
	fflush(out);
	setlocale(LC_ALL, "C");
	assert_string_equal(text, "2.5");
}

/* Writes @s as key and value, reads both back, expects @expected. */
static void check_string(const char *s, const char *expected)
{
	json_error_t error;
	json_t *root;
	const char *key;
	json_t *value;
	size_t seen = 0;

	begin(NULL);
	json_object_begin(w);
	json_field_string(w, s, s);
	json_object_end(w);
	fflush(out);
	for (size_t i = 0; i < size; i++)
		assert_true((unsigned char)text[i] >= 0x20 && text[i] != 0x7f);
	root = json_loadb(text, size, 0, &error);
	if (!root)
		fail_msg("%s in %s", error.text, text);
	json_object_foreach(root, key, value)
	{
		seen++;
		assert_string_equal(key, expected);
		assert_string_equal(json_string_value(value), expected);
	}
	assert_int_equal(seen, 1);
	json_decref(root);
	end(NULL);
}

#define FFFD "\xef\xbf\xbd"

static void hostile_strings(void **state)
{
	(void)state;
	check_string("", "");
	check_string("say \"hi\" \\ / '", "say \"hi\" \\ / '");
	check_string("a\nb\tc\rd\x1b[2J\x01\x7f", "a\nb\tc\rd\x1b[2J\x01\x7f");
	check_string("\xc2\x9b", "\xc2\x9b");
	check_string("\xe2\x82\xac\xf0\x9f\x98\x80", "\xe2\x82\xac\xf0\x9f\x98\x80");
	check_string("\x80x\xff", FFFD "x" FFFD);
	check_string("\xc0\xaf", FFFD FFFD);
	check_string("\xe0\x80\xaf", FFFD FFFD FFFD);
	check_string("\xed\xa0\x80", FFFD FFFD FFFD);
	check_string("\xf4\x90\x80\x80", FFFD FFFD FFFD FFFD);
	check_string("end\xe2\x82", "end" FFFD FFFD);
	check_string("\"},\"x\":{\"", "\"},\"x\":{\"");
}

static void control_bytes_are_not_written(void **state)
{
	(void)state;
	json_str(w, "\x1b\x7f\xc2\x9b");
	fflush(out);
	assert_string_equal(text, "\"\\u001b\\u007f\\u009b\"");
}

static void every_byte_pair(void **state)
{
	char s[3] = "";

	(void)state;
	json_array_begin(w);
	for (int a = 1; a < 256; a++) {
		for (int b = 1; b < 256; b++) {
			s[0] = (char)a;
			s[1] = (char)b;
			json_str(w, s);
		}
	}
	json_array_end(w);
	fflush(out);

	json_t *root = json_loadb(text, size, 0, NULL);

	assert_non_null(root);
	assert_int_equal(json_array_size(root), 255 * 255);
	json_decref(root);
}

static void long_names(void **state)
{
	char name[4097];

	(void)state;
	memset(name, 'x', 4096);
	name[4096] = '\0';
	check_string(name, name);
	memset(name, '"', 4096);
	check_string(name, name);
}

static void deep_nesting(void **state)
{
	(void)state;
	for (int i = 0; i < 1000; i++)
		json_array_begin(w);
	for (int i = 0; i < 1000; i++)
		json_array_end(w);
	fflush(out);
	assert_int_equal(size, 2000);
	assert_null(strchr(text, ','));
}

static void free_accepts_null(void **state)
{
	(void)state;
	json_writer_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(commas_and_nesting, begin, end),
		cmocka_unit_test_setup_teardown(numbers, begin, end),
		cmocka_unit_test_setup_teardown(decimal_point_in_any_language, begin, end),
		cmocka_unit_test(hostile_strings),
		cmocka_unit_test_setup_teardown(control_bytes_are_not_written, begin, end),
		cmocka_unit_test_setup_teardown(every_byte_pair, begin, end),
		cmocka_unit_test(long_names),
		cmocka_unit_test_setup_teardown(deep_nesting, begin, end),
		cmocka_unit_test(free_accepts_null),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
