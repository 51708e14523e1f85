/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/escape.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALL ((size_t)-1)

static void check(const char *s, size_t max_bytes, const char *expected)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	escape_terminal(out, s, max_bytes);
	fclose(out);
	assert_string_equal(text, expected);
	free(text);
}

static void plain_names_stay(void **state)
{
	(void)state;
	check("", ALL, "");
	check("std::vector<int, 4>::push_back(int&&) \"x\"", ALL,
	      "std::vector<int, 4>::push_back(int&&) \"x\"");
	check("na\xc3\xafve \xe2\x82\xac \xf0\x9f\x98\x80", ALL,
	      "na\xc3\xafve \xe2\x82\xac \xf0\x9f\x98\x80");
	check("\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80", ALL,
	      "\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80");
}

static void controls_are_spelled(void **state)
{
	(void)state;
	check("a\nb\tc\r", ALL, "a\\nb\\tc\\x0d");
	check("\x1b[31mred\x07\x7f", ALL, "\\x1b[31mred\\x07\\x7f");
	check("\xc2\x9b"
	      "2J",
	      ALL, "\\xc2\\x9b2J"); /* CSI as one C1 character */
	check("\xc2\x80\xc2\x9f\xc2\xa0", ALL, "\\xc2\\x80\\xc2\\x9f\xc2\xa0");
	check("\\x1b", ALL, "\\\\x1b"); /* cannot be mistaken for an escaped byte */
}

static void broken_utf8_is_spelled(void **state)
{
	(void)state;
	check("\x80\xbf", ALL, "\\x80\\xbf");			/* lone continuations */
	check("\x9b", ALL, "\\x9b");				/* CSI as one byte */
	check("\xc0\xaf\xc1\xbf", ALL, "\\xc0\\xaf\\xc1\\xbf"); /* overlong */
	check("\xe0\x80\xaf\xe0\x9f\xbf", ALL, "\\xe0\\x80\\xaf\\xe0\\x9f\\xbf");
	check("\xf0\x80\x80\xaf\xf0\x8f\xbf\xbf", ALL, "\\xf0\\x80\\x80\\xaf\\xf0\\x8f\\xbf\\xbf");
	check("\xed\xa0\x80\xed\xbf\xbf", ALL, "\\xed\\xa0\\x80\\xed\\xbf\\xbf"); /* surrogates */
	check("\xf4\x90\x80\x80\xf5\x80\xff\xfe", ALL, "\\xf4\\x90\\x80\\x80\\xf5\\x80\\xff\\xfe");
	check("\xe2\x82", ALL, "\\xe2\\x82"); /* cut at the end */
	check("\xe2\x82\nx", ALL, "\\xe2\\x82\\nx");
	check("\xf0\x9f\x98", ALL, "\\xf0\\x9f\\x98");
}

static void long_strings_end_in_dots(void **state)
{
	(void)state;
	check("abcdef", 6, "abcdef");
	check("abcdef", 5, "abcde...");
	check("abc", 0, "...");
	check("", 0, "");
	check("ab\xe2\x82\xac", 5, "ab\xe2\x82\xac");
	check("ab\xe2\x82\xac", 4, "ab..."); /* no half of a character */
}

/* Exact-size heap copies let the address sanitizer see a read beyond the NUL. */
static void reads_stop_at_nul(void **state)
{
	static const char *const cut[] = {"\xc3", "\xe2",     "\xe2\x82",
					  "\xf0", "\xf0\x9f", "\xf0\x9f\x98"};

	(void)state;
	for (size_t i = 0; i < sizeof(cut) / sizeof(cut[0]); i++) {
		char *copy = strdup(cut[i]);

		assert_int_equal(utf8_sequence((unsigned char *)copy), 0);
		free(copy);
	}
}

/* Encodes every value in every length, also the ones that are forbidden. */
static void sequences_follow_the_definition(void **state)
{
	(void)state;
	for (uint32_t c = 0x80; c < 0x800; c++) {
		unsigned char s[] = {0xc0 | c >> 6, 0x80 | (c & 63), 0};

		assert_int_equal(utf8_sequence(s), 2);
	}
	for (uint32_t c = 0; c < 0x10000; c++) {
		unsigned char s[] = {0xe0 | c >> 12, 0x80 | (c >> 6 & 63), 0x80 | (c & 63), 0};
		size_t expected = c >= 0x800 && (c < 0xd800 || c > 0xdfff) ? 3 : 0;

		assert_int_equal(utf8_sequence(s), expected);
	}
	for (uint32_t c = 0; c < 0x200000; c++) {
		unsigned char s[] = {0xf0 | c >> 18, 0x80 | (c >> 12 & 63), 0x80 | (c >> 6 & 63),
				     0x80 | (c & 63), 0};

		assert_int_equal(utf8_sequence(s), c >= 0x10000 && c <= 0x10ffff ? 4 : 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_names_stay),
		cmocka_unit_test(controls_are_spelled),
		cmocka_unit_test(broken_utf8_is_spelled),
		cmocka_unit_test(long_strings_end_in_dots),
		cmocka_unit_test(reads_stop_at_nul),
		cmocka_unit_test(sequences_follow_the_definition),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
