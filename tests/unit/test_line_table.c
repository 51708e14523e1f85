/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The truth is what a Python says itself: of the one that runs here for many code
 * objects, of others for one that was saved. LEAKTOP_PYTHON names another Python (a
 * command), LEAKTOP_STDLIB=1 takes its whole standard library.
 */
#include "python/line_table.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "python_walk.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

/* A line a code object: 3.minor, first line, table in hex, runs of units with one line.
 * No quotation marks of one kind, it is passed through a shell. */
static const char truth_script[] =
	"import ctypes, os, sys\n"
	"addr2line = ctypes.pythonapi.PyCode_Addr2Line\n"
	"addr2line.argtypes = [ctypes.py_object, ctypes.c_int]\n"
	"minor = sys.version_info[1]\n"
	"stdlib = os.path.dirname(os.__file__)\n"
	"def walk(code):\n"
	"    yield code\n"
	"    for const in code.co_consts:\n"
	"        if hasattr(const, \"co_code\"):\n"
	"            for inner in walk(const):\n"
	"                yield inner\n"
	"def files():\n"
	"    for name in sys.argv[1:]:\n"
	"        yield os.path.join(stdlib, name)\n"
	"    if len(sys.argv) == 1:\n"
	"        for folder, inner, names in os.walk(stdlib):\n"
	"            inner[:] = [name for name in inner if name != \"site-packages\"]\n"
	"            for name in names:\n"
	"                if name.endswith(\".py\"):\n"
	"                    yield os.path.join(folder, name)\n"
	"def check_iterator(code, lines):\n"
	"    if minor < 10:\n"
	"        return\n"
	"    said = [0] * len(lines)\n"
	"    for start, end, line in code.co_lines():\n"
	"        for at in range(start, end, 2):\n"
	"            said[at // 2] = line or 0\n"
	"    assert said == lines, code\n"
	"def show(code):\n"
	"    size = len(code.co_code)\n"
	"    lines = [max(addr2line(code, at), 0) for at in range(0, size, 2)]\n"
	"    check_iterator(code, lines)\n"
	"    table = code.co_linetable if minor >= 10 else code.co_lnotab\n"
	"    runs = []\n"
	"    for line in lines:\n"
	"        if not runs or runs[-1][0] != line:\n"
	"            runs.append([line, 0])\n"
	"        runs[-1][1] += 1\n"
	"    text = \" \".join(\"%d:%d\" % tuple(run) for run in runs)\n"
	"    print(minor, code.co_firstlineno, \"x\" + table.hex(), text)\n"
	"for path in files():\n"
	"    try:\n"
	"        with open(path, \"rb\") as source:\n"
	"            code = compile(source.read(), path, \"exec\", dont_inherit=True)\n"
	"    except (SyntaxError, ValueError, RecursionError):\n"
	"        continue\n"
	"    for inner in walk(code):\n"
	"        show(inner)\n"
	"print(\"end\")\n";

static const char some_modules[] = " os.py argparse.py ast.py asyncio/base_events.py dataclasses.py"
				   " decimal.py difflib.py inspect.py typing.py turtle.py";

/*
 * Of:
 *	def f(a, b):			(line 4)
 *		g = lambda: a
 *		for x in a:
 *			try:
 *				b(x,
 *				  g(
 *				    x))
 *			except KeyError as e:
 *				break
 *			... 400 lines
 *			b(
 *			... 150 lines
 *	x)
 *		return b
 */
static const uint8_t table_3_8[] = {0x00, 0x01, 0x0c, 0x01, 0x08, 0x01, 0x02, 0x01, 0x04, 0x01,
				    0x02, 0x01, 0x02, 0xff, 0x02, 0xff, 0x08, 0x03, 0x10, 0x01,
				    0x1c, 0x7f, 0x00, 0x7f, 0x00, 0x7f, 0x00, 0x13, 0x02, 0x7f,
				    0x00, 0x18, 0x02, 0x80, 0x00, 0xe9, 0x06, 0x7f, 0x00, 0x19};
static const uint16_t lines_3_8[] = {5,	 5,  5,	 5,   5,   5,	6,   6,	  6,   6,  7,  8,  8,
				     9,	 10, 9,	 8,   8,   8,	8,   11,  11,  11, 11, 11, 11,
				     11, 11, 12, 12,  12,  12,	12,  12,  12,  12, 12, 12, 12,
				     12, 12, 12, 412, 563, 412, 412, 412, 564, 564};

static const uint8_t table_3_10[] = {
	0x0c, 0x01, 0x08, 0x01, 0x02, 0x01, 0x04, 0x01, 0x02, 0x01, 0x02, 0x01, 0x02,
	0xff, 0x08, 0xff, 0x0e, 0x03, 0x0c, 0x01, 0x00, 0x7f, 0x00, 0x7f, 0x00, 0x7f,
	0x00, 0x7f, 0x04, 0x2c, 0x08, 0x80, 0x00, 0x81, 0x00, 0x81, 0x00, 0x81, 0x00,
	0x81, 0x02, 0xd3, 0x00, 0x7f, 0x00, 0x7f, 0x00, 0x7f, 0x02, 0x14, 0x00, 0x7f,
	0x02, 0x18, 0x00, 0x81, 0x06, 0xe8, 0x00, 0x7f, 0x04, 0x19};
static const uint16_t lines_3_10[] = {5,  5,  5,  5,  5,   5,	6,   6,	  6,   6,   7,	 8,
				      8,  9,  10, 9,  8,   8,	8,   8,	  11,  11,  11,	 11,
				      11, 11, 11, 12, 12,  12,	12,  12,  12,  564, 564, 0,
				      0,  0,  0,  11, 412, 563, 412, 412, 412, 564, 564};

static const uint8_t table_3_11[] = {
	0xf8, 0x80, 0x00, 0xd8, 0x05, 0x0e, 0x80, 0x59, 0x80, 0x59, 0x80, 0x59, 0x80, 0x11, 0xd8,
	0x0a, 0x0b, 0xf0, 0x00, 0x6d, 0x08, 0x02, 0x03, 0xf0, 0x00, 0x6d, 0x08, 0x02, 0x03, 0x80,
	0x51, 0xf0, 0x02, 0x05, 0x03, 0x09, 0xd8, 0x03, 0x04, 0x80, 0x31, 0x80, 0x51, 0xd8, 0x05,
	0x06, 0x80, 0x51, 0xd8, 0x07, 0x08, 0xf1, 0x03, 0x01, 0x06, 0x0a, 0xf4, 0x00, 0x01, 0x06,
	0x0a, 0xf1, 0x03, 0x02, 0x04, 0x0b, 0xf4, 0x00, 0x02, 0x04, 0x0b, 0xf0, 0x00, 0x02, 0x04,
	0x0b, 0xf0, 0x00, 0x02, 0x04, 0x0b, 0xf8, 0xf5, 0x06, 0x00, 0x0a, 0x12, 0xf0, 0x00, 0x01,
	0x03, 0x09, 0xf0, 0x00, 0x01, 0x03, 0x09, 0xf0, 0x00, 0x01, 0x03, 0x09, 0xd8, 0x03, 0x08,
	0x80, 0x35, 0x80, 0x35, 0x80, 0x35, 0x80, 0x35, 0x80, 0x35, 0xf8, 0xf8, 0xf8, 0xf8, 0xf0,
	0x03, 0x01, 0x03, 0x09, 0xf8, 0xf8, 0xf8, 0xf0, 0x62, 0x0c, 0x00, 0x03, 0x04, 0x80, 0x21,
	0xf0, 0x6e, 0x04, 0x00, 0x01, 0x02, 0xf1, 0x6f, 0x04, 0x57, 0x02, 0x03, 0x03, 0xf4, 0x00,
	0x57, 0x02, 0x03, 0x03, 0xf0, 0x00, 0x57, 0x02, 0x03, 0x03, 0xf0, 0x00, 0x57, 0x02, 0x03,
	0x03, 0xf0, 0x70, 0x04, 0x00, 0x09, 0x0a, 0x80, 0x18};
static const uint16_t lines_3_11[] = {
	0,  4,	5,  5,	5,   5,	  5,   6,   6,	 6,   6,   7,	8,   8,	  8,   9,   9,	 10,
	9,  9,	9,  9,	9,   9,	  9,   8,   8,	 8,   8,   8,	8,   8,	  8,   8,   0,	 11,
	11, 11, 11, 11, 11,  11,  11,  11,  12,	 12,  12,  12,	12,  12,  0,   0,   0,	 0,
	11, 0,	0,  0,	412, 412, 563, 412, 412, 412, 412, 412, 412, 412, 412, 412, 564, 564};

static const uint8_t table_3_15[] = {
	0xf8, 0x81, 0x00, 0xdc, 0x05, 0x0e, 0x80, 0x11, 0xdc, 0x0a, 0x0b, 0x80, 0x51, 0xf0, 0x02,
	0x05, 0x03, 0x09, 0xd9, 0x03, 0x04, 0x80, 0x51, 0xd9, 0x05, 0x06, 0xd8, 0x07, 0x08, 0xf3,
	0x03, 0x01, 0x06, 0x0a, 0xf4, 0x03, 0x02, 0x04, 0x0b, 0xf1, 0x68, 0x0c, 0x00, 0x03, 0x04,
	0xf0, 0x6e, 0x04, 0x00, 0x01, 0x02, 0xf6, 0x6f, 0x04, 0x57, 0x02, 0x03, 0x03, 0xf1, 0x6d,
	0x0c, 0x00, 0x0b, 0x0c, 0xf0, 0x5c, 0x11, 0x00, 0x09, 0x0a, 0x80, 0x18, 0xf8, 0xf4, 0x53,
	0x11, 0x00, 0x0a, 0x12, 0xf4, 0x00, 0x01, 0x03, 0x09, 0xdd, 0x03, 0x08, 0xf0, 0x50, 0x11,
	0x00, 0x09, 0x0a, 0x80, 0x18, 0xfb, 0xf0, 0x53, 0x11, 0x01, 0x03, 0x09, 0xfa};
static const uint16_t lines_3_15[] = {
	0,   4,	  4,   5,   5,	 5,  5,	 5,   5,   6,	6,  6,	6,  6,	 6,   7,   8,	8,
	8,   9,	  9,   10,  9,	 9,  9,	 9,   8,   8,	8,  8,	8,  412, 412, 563, 412, 412,
	412, 412, 412, 412, 412, 6,  6,	 564, 564, 0,	11, 11, 11, 11,	 11,  11,  11,	11,
	11,  11,  12,  12,  12,	 12, 12, 12,  564, 564, 0,  0,	0,  0,	 11,  0,   0,	0};

static const struct {
	int minor;
	const uint8_t *table;
	size_t bytes;
	const uint16_t *lines;
	size_t units;
} saved[] = {
	{8, table_3_8, LENGTH(table_3_8), lines_3_8, LENGTH(lines_3_8)},
	{9, table_3_8, LENGTH(table_3_8), lines_3_8, LENGTH(lines_3_8)},
	{10, table_3_10, LENGTH(table_3_10), lines_3_10, LENGTH(lines_3_10)},
	{11, table_3_11, LENGTH(table_3_11), lines_3_11, LENGTH(lines_3_11)},
	{15, table_3_15, LENGTH(table_3_15), lines_3_15, LENGTH(lines_3_15)},
};

static void test_saved(void **state)
{
	(void)state;
	for (size_t i = 0; i < LENGTH(saved); i++) {
		for (uint32_t unit = 0; unit < saved[i].units; unit++)
			assert_int_equal(line_table_find(saved[i].minor, saved[i].table,
							 saved[i].bytes, 1, 4, unit),
					 saved[i].lines[unit]);
	}
}

/* A part of a table never says another line than the whole. */
static void test_cut(void **state)
{
	(void)state;
	for (size_t i = 0; i < LENGTH(saved); i++) {
		uint32_t known = 0, known_before = 0;

		for (size_t bytes = 0; bytes <= saved[i].bytes; bytes++) {
			uint8_t *part = malloc(bytes + 1); /* its end is watched by ASan */

			memcpy(part + 1, saved[i].table, bytes);
			known_before = known;
			known = 0;
			for (uint32_t unit = 0; unit < saved[i].units; unit++) {
				uint32_t line = line_table_find(saved[i].minor, part + 1, bytes, 0,
								4, unit);

				assert_true(line == 0 || line == saved[i].lines[unit]);
				known += line != 0;
			}
			assert_true(known >= known_before);
			free(part);
		}
		assert_true(known > saved[i].units / 2);
	}
}

static void test_special_units(void **state)
{
	(void)state;
	for (int minor = 8; minor <= 15; minor++) {
		assert_int_equal(line_table_find(minor, NULL, 0, 1, 7, PYTHON_UNIT_START), 7);
		assert_int_equal(line_table_find(minor, NULL, 0, 0, 7, PYTHON_UNIT_START), 7);
		assert_int_equal(line_table_find(minor, NULL, 0, 1, 7, PYTHON_UNIT_UNKNOWN), 0);
		assert_int_equal(line_table_find(minor, NULL, 0, 0, 7, 0), 0);
	}
	/* An empty lnotab: all is in the first line. Later ones name no line at all. */
	assert_int_equal(line_table_find(9, NULL, 0, 1, 7, 3), 7);
	assert_int_equal(line_table_find(10, NULL, 0, 1, 7, 3), 0);
	assert_int_equal(line_table_find(11, NULL, 0, 1, 7, 3), 0);
	/* No line is negative. */
	assert_int_equal(line_table_find(11, NULL, 0, 1, UINT32_MAX, PYTHON_UNIT_START), 0);
}

static void expect(int minor, const char *table, size_t bytes, uint32_t unit, uint32_t line)
{
	uint8_t *copy = malloc(bytes + 1);

	memcpy(copy + 1, table, bytes);
	assert_int_equal(line_table_find(minor, copy + 1, bytes, 1, 10, unit), line);
	free(copy);
}

#define EXPECT(minor, table, unit, line) expect(minor, table, sizeof(table) - 1, unit, line)

static void test_pairs(void **state)
{
	(void)state;
	EXPECT(9, "\x02\x05", 0, 10);
	EXPECT(9, "\x02\x05", 1, 15);
	EXPECT(9, "\x02\x05\x02", 1, 15); /* half a pair */
	EXPECT(9, "\x02\x80", 1, 0);	  /* 10 - 128 */
	EXPECT(9, "\x02\x80\x00\x7f\x00\x7f", 1, 136);
	EXPECT(9, "\x02\xf6", 1, 0); /* line 0 */
	EXPECT(10, "\x02\x05\x02\x80\x02\x01", 0, 15);
	EXPECT(10, "\x02\x05\x02\x80\x02\x01", 1, 0);
	EXPECT(10, "\x02\x05\x02\x80\x02\x01", 2, 16);
	EXPECT(10, "\x02\x05\x02\x80\x02\x01", 3, 0);
	EXPECT(10, "\x02\x05\x02", 1, 0);
	EXPECT(10, "\x02\x81", 0, 0);
}

static void test_locations(void **state)
{
	(void)state;
	EXPECT(11, "\x80\x00", 0, 10);				   /* short form */
	EXPECT(11, "\xd1\x00\x00\xd8\x00\x00\xe0\x00\x00", 1, 10); /* one line: + 0, 1, 2 */
	EXPECT(11, "\xd1\x00\x00\xd8\x00\x00\xe0\x00\x00", 2, 11);
	EXPECT(11, "\xd1\x00\x00\xd8\x00\x00\xe0\x00\x00", 3, 13);
	EXPECT(11, "\xd1\x00\x00\xd8\x00\x00\xe0\x00\x00", 4, 0);
	EXPECT(11, "\xe8\x02", 0, 11); /* no columns */
	EXPECT(11, "\xe8\x03", 0, 9);
	EXPECT(11, "\xf0\x42\x01\x00\x01\x01", 0, 43); /* long: 0b000001000010 */
	EXPECT(11, "\xff\xf8\xe8\x02", 7, 0);	       /* none */
	EXPECT(11, "\xff\xf8\xe8\x02", 9, 11);
}

static void test_hostile_locations(void **state)
{
	(void)state;
	EXPECT(11, "\x00", 0, 0); /* not an entry's start */
	EXPECT(11, "\x00\x80\x00", 0, 0);
	EXPECT(11, "\xe8", 0, 0);	      /* no varint */
	EXPECT(11, "\xe8\x42", 0, 0);	      /* it has no end */
	EXPECT(11, "\xe8\x42\xe8\x02", 0, 0); /* another entry in it */
	EXPECT(11, "\xe8\x40\x40\x40\x40\x40\x40\x40\x40", 0, 0);
	EXPECT(11, "\xe8\x40\x40\x40\x40\x40\x40\x01", 0, 0); /* more than CPython's int */
	EXPECT(11, "\xe8\x7f\x7f\x7f\x7f\x7f\x3f", 0, 11);    /* -(2^35 - 1): 1 modulo 2^32 */
	EXPECT(11, "\xe8\x7e\x7f\x7f\x7f\x7f\x03", 0, 0);     /* 10 + 2^31 - 1 */
	EXPECT(11, "\xe8\x7e\x7f\x7f\x7f\x7f\x03\xe8\x7e\x7f\x7f\x7f\x7f\x03", 1, 8);
	EXPECT(11, "\xe8\x15", 0, 0);	      /* line 0 */
	EXPECT(11, "\xe8\x17\xe8\x06", 0, 0); /* line -1 */
	EXPECT(11, "\xe8\x17\xe8\x06", 1, 2); /* and back */
}

static bool hex_digit(char c, uint8_t *out)
{
	const char digits[] = "0123456789abcdef", *at = c ? strchr(digits, c) : NULL;

	if (at)
		*out = (uint8_t)(at - digits);
	return at;
}

/* In place. Returns behind the digits. */
static char *read_hex(char *text, const uint8_t **table, size_t *bytes)
{
	uint8_t *to = (uint8_t *)text, high, low;

	*table = to;
	while (hex_digit(text[0], &high) && hex_digit(text[1], &low)) {
		*to++ = (uint8_t)(high << 4 | low);
		text += 2;
	}
	*bytes = (size_t)(to - *table);
	return text;
}

static void check_code(char *text, size_t *units)
{
	int minor = (int)strtol(text, &text, 10);
	uint32_t first = (uint32_t)strtoul(text, &text, 10), unit = 0;
	const uint8_t *table;
	size_t bytes;

	assert_true(minor >= 8 && text[0] == ' ' && text[1] == 'x');
	text = read_hex(text + 2, &table, &bytes);
	while (*text == ' ') {
		uint32_t line = (uint32_t)strtoul(text, &text, 10);
		uint32_t end = unit + (uint32_t)strtoul(text + 1, &text, 10);

		for (; unit < end; unit++)
			assert_int_equal(line_table_find(minor, table, bytes, 1, first, unit),
					 line);
	}
	assert_int_equal(*text, '\n');
	*units += unit;
}

static void test_live(void **state)
{
	const char *python = getenv("LEAKTOP_PYTHON"), *all = getenv("LEAKTOP_STDLIB");
	size_t codes = 0, units = 0, room = 0;
	char *command, *text = NULL;
	bool ended = false;
	FILE *in;

	(void)state;
	if (!python)
		python = "/usr/bin/python3";
	if (asprintf(&command, "%s -c 'import ctypes'", python) < 0 || system(command)) {
		print_message("no python3 with ctypes\n");
		skip();
	}
	free(command);
	assert_true(asprintf(&command, "%s -W ignore -c '%s' %s", python, truth_script,
			     all ? "" : some_modules) > 0);
	in = popen(command, "re");
	assert_non_null(in);
	while (getline(&text, &room, in) > 0) {
		ended = !strcmp(text, "end\n");
		if (ended)
			break;
		check_code(text, &units);
		codes++;
	}
	assert_int_equal(pclose(in), 0);
	assert_true(ended && codes > 100);
	print_message("%zu code objects, %zu units\n", codes, units);
	free(text);
	free(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_saved),	      cmocka_unit_test(test_cut),
		cmocka_unit_test(test_special_units), cmocka_unit_test(test_pairs),
		cmocka_unit_test(test_locations),     cmocka_unit_test(test_hostile_locations),
		cmocka_unit_test(test_live),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
