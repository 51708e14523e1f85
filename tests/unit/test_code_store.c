/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "python/code_store.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "events.h"
#include "python_walk.h"

/* PyASCIIObject.state as CPython 3.8 to 3.15 showed it, with what lay in its padding. */
#define STATE_ASCII 0xe5
#define STATE_LATIN1 0x0776e8a4
#define STATE_UCS2 0x000900a8
#define STATE_UCS4 0x001e0030
#define CODE 0x7f0000001000u

static struct event_code *event_new(uint64_t code, const char *file, const char *name)
{
	struct event_code *e = calloc(1, sizeof(*e));

	e->head.kind = EVENT_CODE;
	e->code = code;
	e->first_line = 10;
	e->file =
		(struct event_string){(uint32_t)strlen(file), STATE_ASCII, (uint32_t)strlen(file)};
	e->name =
		(struct event_string){(uint32_t)strlen(name), STATE_ASCII, (uint32_t)strlen(name)};
	memcpy(e->file_data, file, strlen(file));
	memcpy(e->name_data, name, strlen(name));
	return e;
}

static int add(struct code_store *s, const struct event_code *e)
{
	return code_store_add(s, e, sizeof(*e));
}

static void add_new(struct code_store *s, uint64_t code, const char *name)
{
	struct event_code *e = event_new(code, "/a.py", name);

	assert_int_equal(add(s, e), 0);
	free(e);
}

static void assert_known(struct code_store *s, uint64_t code, const char *name)
{
	struct python_code *c = code_store_get(s, code);

	if (!name) {
		assert_null(c);
		return;
	}
	assert_non_null(c);
	assert_string_equal(python_code_function(c), name);
	python_code_unref(c);
}

static void test_names(void **state)
{
	struct code_store *s = code_store_new(11, 100);
	struct event_code *e = event_new(CODE, "/a/b.py", "C.f.<locals>.<lambda>");
	struct python_code *c;

	(void)state;
	assert_null(code_store_get(s, CODE));
	/* One line, two units: + 1. */
	memcpy(e->lines, "\xd9\x00\x00", 3);
	e->lines_bytes = e->lines_total = 3;
	assert_int_equal(add(s, e), 0);
	c = code_store_get(s, CODE);
	assert_string_equal(python_code_file(c), "/a/b.py");
	assert_string_equal(python_code_function(c), "C.f.<locals>.<lambda>");
	assert_int_equal(python_code_line(c, 1), 11);
	assert_int_equal(python_code_line(c, 2), 0);
	assert_int_equal(python_code_line(c, PYTHON_UNIT_START), 10);
	assert_null(code_store_get(s, CODE + 16));
	/* It outlives the store. */
	code_store_free(s);
	assert_string_equal(python_code_file(c), "/a/b.py");
	python_code_unref(c);
	python_code_unref(NULL);
	code_store_free(NULL);
	free(e);
}

/* What the name becomes whose contents are @bytes at @data. */
static void expect_name(uint32_t length, uint32_t string_state, const void *data, uint32_t bytes,
			const char *want)
{
	struct code_store *s = code_store_new(11, 100);
	struct event_code *e = event_new(CODE, "", "");
	struct python_code *c;

	e->name = (struct event_string){length, string_state, bytes};
	if (bytes <= sizeof(e->name_data))
		memcpy(e->name_data, data, bytes);
	assert_int_equal(add(s, e), 0);
	c = code_store_get(s, CODE);
	assert_string_equal(python_code_file(c), "");
	assert_string_equal(python_code_function(c), want);
	python_code_unref(c);
	free(e);
	code_store_free(s);
}

static void test_strings(void **state)
{
	const uint16_t ucs2[] = {0x4e2d, 'x', 0xdc80, 0xd83d, 0xde00, 0xffff, 0x7ff};
	const uint32_t ucs4[] = {0x1f600, 'a', 0xe9, 0x10ffff, 0xd800};

	(void)state;
	expect_name(0, STATE_ASCII, "", 0, "");
	expect_name(3, STATE_ASCII, "a\nb", 3, "a\nb");
	expect_name(3, 0x66, "abc", 3, "abc"); /* 3.13: interned and immortal */
	expect_name(3, STATE_LATIN1,
		    "d\xe9"
		    "f",
		    3,
		    "d\xc3\xa9"
		    "f");
	expect_name(1, STATE_LATIN1, "\xff", 1, "\xc3\xbf");
	expect_name(7, STATE_UCS2, ucs2, sizeof(ucs2),
		    "\xe4\xb8\xadx\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbf\xdf\xbf");
	expect_name(5, STATE_UCS4, ucs4, sizeof(ucs4),
		    "\xf0\x9f\x98\x80"
		    "a\xc3\xa9\xf4\x8f\xbf\xbf\xef\xbf\xbd");
	expect_name(3, STATE_ASCII, "a\0b", 3,
		    "a\xef\xbf\xbd"
		    "b");
}

static void test_cut_strings(void **state)
{
	const uint16_t ucs2[] = {0x4e2d, 'x'};
	char full[CODE_NAME_BYTES], want[3 * CODE_NAME_BYTES + 4];

	(void)state;
	expect_name(4, STATE_ASCII, "abc", 3, "abc...");
	expect_name(3, STATE_UCS2, ucs2, 4, "\xe4\xb8\xadx...");
	expect_name(2, STATE_UCS2, ucs2, 3, "\xe4\xb8\xad...");
	expect_name(UINT32_MAX, STATE_UCS4, "a\0\0\0", 4, "a...");
	memset(full, 0, sizeof(full));
	for (size_t i = 0; i < sizeof(full); i++)
		strcpy(want + 3 * i, "\xef\xbf\xbd");
	expect_name(sizeof(full), STATE_ASCII, full, sizeof(full), want);
	strcat(want, "...");
	expect_name(sizeof(full) + 1, STATE_ASCII, full, sizeof(full), want);
}

static void test_no_strings(void **state)
{
	const uint32_t beyond = 0x110000;

	(void)state;
	expect_name(0, 0, "", 0, "?");			     /* it could not be read */
	expect_name(3, STATE_ASCII, "", 0, "?");	     /* its contents could not */
	expect_name(3, STATE_ASCII & ~0x20u, "abc", 3, "?"); /* not compact */
	expect_name(1, 0x20 | 3 << 2, "abc", 3, "?");	     /* kind 3 */
	expect_name(1, 0x60 | 2 << 2, "ab", 2, "?");	     /* ASCII of two bytes */
	expect_name(1, STATE_ASCII, "\xe9", 1, "?");
	expect_name(1, STATE_UCS4, &beyond, 4, "?");
	expect_name(2, STATE_ASCII, "abc", 3, "?"); /* more than it has */
	expect_name(UINT32_MAX, STATE_ASCII, NULL, CODE_NAME_BYTES + 1, "?");
	expect_name(UINT32_MAX, STATE_UCS4, NULL, UINT32_MAX, "?");
}

/* A location table of pieces, each of CODE_LINES_BYTES / 2 units, each one line further. */
static struct event_code *piece_new(uint32_t piece, uint32_t total)
{
	struct event_code *e = event_new(CODE, "/a.py", "f");

	for (size_t i = 0; i < CODE_LINES_BYTES; i += 2)
		memcpy(e->lines + i, "\xe8\x02", 2);
	e->piece = piece;
	e->lines_total = total;
	e->lines_bytes = total - piece * CODE_LINES_BYTES;
	if (e->lines_bytes > CODE_LINES_BYTES)
		e->lines_bytes = CODE_LINES_BYTES;
	return e;
}

static void add_piece(struct code_store *s, uint32_t piece, uint32_t total, int want)
{
	struct event_code *e = piece_new(piece, total);

	assert_int_equal(add(s, e), want);
	free(e);
}

/* The last unit whose line is known. */
static void assert_units(struct code_store *s, uint32_t units)
{
	struct python_code *c = code_store_get(s, CODE);

	assert_int_equal(python_code_line(c, units - 1), 10 + units);
	assert_int_equal(python_code_line(c, units), 0);
	python_code_unref(c);
}

static void test_pieces(void **state)
{
	const uint32_t total = 2 * CODE_LINES_BYTES + 100;
	struct code_store *s = code_store_new(11, 100);

	(void)state;
	add_piece(s, 1, total, -ENOENT); /* of what? */
	assert_known(s, CODE, NULL);
	add_piece(s, 0, total, 0);
	assert_units(s, CODE_LINES_BYTES / 2);
	add_piece(s, 1, total, 0);
	add_piece(s, 1, total, 0); /* another processor's */
	assert_units(s, CODE_LINES_BYTES);
	add_piece(s, 2, total, 0);
	assert_units(s, CODE_LINES_BYTES + 50);
	/* A missing one. */
	add_piece(s, 0, total, 0);
	add_piece(s, 2, total, 0);
	add_piece(s, 1, total, 0);
	assert_units(s, CODE_LINES_BYTES / 2);
	/* A later one of an object that was never announced. */
	add_piece(s, 0, total, 0);
	add_piece(s, 1, total + 2, -ENOENT);
	assert_known(s, CODE, NULL);
	code_store_free(s);
}

/* The end of an old table holds for all units after it, if it is the end. */
static void test_incomplete(void **state)
{
	struct code_store *s = code_store_new(9, 100);
	struct event_code *e = event_new(CODE, "/a.py", "f");
	struct python_code *c;

	(void)state;
	memcpy(e->lines, "\x02\x01", 2);
	e->lines_bytes = 2;
	e->lines_total = UINT32_MAX;
	assert_int_equal(add(s, e), 0);
	c = code_store_get(s, CODE);
	assert_int_equal(python_code_line(c, 0), 10);
	assert_int_equal(python_code_line(c, 5), 0);
	python_code_unref(c);
	e->lines_total = 2;
	assert_int_equal(add(s, e), 0);
	c = code_store_get(s, CODE);
	assert_int_equal(python_code_line(c, 5), 11);
	python_code_unref(c);
	free(e);
	code_store_free(s);
}

static void test_announced_again(void **state)
{
	struct code_store *s = code_store_new(11, 100);
	struct python_code *old, *same, *new;

	(void)state;
	add_new(s, CODE, "f");
	old = code_store_get(s, CODE);
	add_new(s, CODE, "f");
	same = code_store_get(s, CODE);
	assert_ptr_equal(same, old);
	add_new(s, CODE, "g");
	new = code_store_get(s, CODE);
	assert_ptr_not_equal(new, old);
	assert_string_equal(python_code_function(new), "g");
	assert_string_equal(python_code_function(old), "f");
	python_code_unref(old);
	python_code_unref(same);
	python_code_unref(new);
	code_store_free(s);
}

static void test_identity(void **state)
{
	const char *const names[][2] = {{"/a.py", "f"}, {"/a.py", "g"}, {"/b.py", "f"},
					{"/a.pyf", ""}, {"", "/a.pyf"}, {"/a.py", "f"}};
	struct code_store *s = code_store_new(11, 100);
	uint64_t identity[6];

	(void)state;
	for (size_t i = 0; i < 6; i++) {
		struct event_code *e = event_new(CODE + 16 * i, names[i][0], names[i][1]);
		struct python_code *c;

		assert_int_equal(add(s, e), 0);
		c = code_store_get(s, CODE + 16 * i);
		identity[i] = python_code_identity(c);
		python_code_unref(c);
		if (i == 5) {
			e->first_line++;
			assert_int_equal(add(s, e), 0);
			c = code_store_get(s, CODE + 16 * i);
			assert_int_not_equal(python_code_identity(c), identity[i]);
			python_code_unref(c);
		}
		free(e);
	}
	assert_int_equal(identity[0], identity[5]);
	assert_int_equal(identity[0], 0xe3037202520afd0eu); /* the same in every run */
	for (size_t i = 0; i < 5; i++)
		for (size_t j = 0; j < i; j++)
			assert_int_not_equal(identity[i], identity[j]);
	code_store_free(s);
}

static void test_limit(void **state)
{
	struct code_store *s = code_store_new(11, 4);
	struct python_code *used;

	(void)state;
	add_new(s, CODE, "0");
	add_new(s, CODE + 16, "1");
	add_new(s, CODE + 32, "2");
	add_new(s, CODE + 48, "3");
	used = code_store_get(s, CODE + 16);
	add_new(s, CODE, "0"); /* no longer the oldest */
	add_new(s, CODE + 64, "4");
	add_new(s, CODE + 80, "5");
	assert_known(s, CODE, "0");
	assert_known(s, CODE + 16, "1");
	assert_known(s, CODE + 32, NULL);
	assert_known(s, CODE + 48, NULL);
	assert_known(s, CODE + 64, "4");
	assert_known(s, CODE + 80, "5");
	assert_string_equal(python_code_function(used), "1");
	python_code_unref(used);
	code_store_free(s);
}

/* All in use: the limit is passed, and kept again once they are not. */
static void test_limit_in_use(void **state)
{
	struct code_store *s = code_store_new(11, 2);
	struct python_code *used[1000];
	size_t known = 0;

	(void)state;
	for (size_t i = 0; i < 1000; i++) {
		add_new(s, CODE + 16 * i, "f");
		used[i] = code_store_get(s, CODE + 16 * i);
		assert_non_null(used[i]);
	}
	for (size_t i = 0; i < 1000; i++) {
		assert_known(s, CODE + 16 * i, "f");
		python_code_unref(used[i]);
	}
	for (size_t i = 0; i < 1000; i++)
		add_new(s, CODE + 16 * (1000 + i), "g");
	for (size_t i = 0; i < 2000; i++) {
		struct python_code *c = code_store_get(s, CODE + 16 * i);

		known += c != NULL;
		python_code_unref(c);
	}
	assert_int_equal(known, 2);
	assert_known(s, CODE + 16 * 1999, "g");
	code_store_free(s);
}

/* Long tables count for more. */
static void test_limit_bytes(void **state)
{
	struct code_store *s = code_store_new(11, 8);

	(void)state;
	for (uint32_t code = 0; code < 2; code++) {
		for (uint32_t piece = 0; piece < 8; piece++) {
			struct event_code *e = piece_new(piece, 8 * CODE_LINES_BYTES);

			e->code += 16 * code;
			assert_int_equal(add(s, e), 0);
			free(e);
		}
	}
	add_new(s, CODE + 64, "g");
	assert_known(s, CODE, NULL);
	assert_known(s, CODE + 16, "f");
	assert_known(s, CODE + 64, "g");
	code_store_free(s);
}

static void test_refused(void **state)
{
	const size_t head = offsetof(struct event_code, lines);
	struct code_store *s = code_store_new(11, 100);
	struct event_code *e = event_new(CODE, "/a.py", "f");

	(void)state;
	assert_int_equal(code_store_add(s, e, 0), -EINVAL);
	assert_int_equal(code_store_add(s, e, head - 1), -EINVAL);
	e->lines_bytes = e->lines_total = CODE_LINES_BYTES;
	assert_int_equal(code_store_add(s, e, sizeof(*e) - 1), -EINVAL);
	e->lines_bytes = e->lines_total = CODE_LINES_BYTES + 1;
	assert_int_equal(code_store_add(s, e, sizeof(*e) + 100), -EINVAL);
	e->lines_bytes = 10;
	e->lines_total = 9;
	assert_int_equal(add(s, e), -EINVAL);
	e->lines_total = UINT32_MAX;
	e->piece = CODE_PIECES_MAX;
	assert_int_equal(add(s, e), -EINVAL);
	e->piece = 1u << 22; /* times CODE_LINES_BYTES is 0 */
	assert_int_equal(add(s, e), -EINVAL);
	e->piece = 0;
	e->head.kind = EVENT_STACK;
	assert_int_equal(add(s, e), -EINVAL);
	assert_known(s, CODE, NULL);
	e->head.kind = EVENT_CODE;
	assert_int_equal(code_store_add(s, e, head + 10), 0);
	assert_known(s, CODE, "f");
	free(e);
	code_store_free(s);
}

/* A str object of the Python that runs here: its head and its data, and what it is in UTF-8. */
static const char string_script[] =
	"import ctypes, sys\n"
	"for text in (\"abc\", \"\", \"d\\xe9f\", \"\\u4e2d \\u20ac\", \"\\U0001f600x\"):\n"
	"    head = ctypes.string_at(id(text) + 16, 24)\n"
	"    kind = head[16] >> 2 & 7\n"
	"    old = sys.version_info < (3, 12)\n"
	"    data = (48 if old else 40) if text.isascii() else (72 if old else 56)\n"
	"    raw = ctypes.string_at(id(text) + data, len(text) * kind)\n"
	"    print(int.from_bytes(head[:8], \"little\"), int.from_bytes(head[16:20], \"little\"),\n"
	"          \"x\" + raw.hex(), \"x\" + text.encode().hex())\n";

static uint32_t read_hex(char **at, uint8_t *out)
{
	unsigned int byte;
	uint32_t n = 0;

	assert_true(!strncmp(*at, " x", 2));
	for (*at += 2; sscanf(*at, "%2x", &byte) == 1 && **at != ' ' && n < 64; *at += 2)
		out[n++] = (uint8_t)byte;
	out[n] = 0;
	return n;
}

static void test_live_strings(void **state)
{
	const char *python = getenv("LEAKTOP_PYTHON");
	char *command, *at, line[1024];
	size_t strings = 0;
	FILE *in;

	(void)state;
	if (!python)
		python = "/usr/bin/python3";
	if (asprintf(&command, "%s -c 'import ctypes'", python) < 0 || system(command)) {
		print_message("no python3 with ctypes\n");
		skip();
	}
	free(command);
	assert_true(asprintf(&command, "%s -c '%s'", python, string_script) > 0);
	in = popen(command, "re");
	assert_non_null(in);
	while (fgets(line, sizeof(line), in)) {
		uint32_t length = (uint32_t)strtoul(line, &at, 10);
		uint32_t string_state = (uint32_t)strtoul(at, &at, 10);
		uint8_t raw[65], text[65];
		uint32_t bytes = read_hex(&at, raw);

		read_hex(&at, text);
		expect_name(length, string_state, raw, bytes, (char *)text);
		strings++;
	}
	assert_int_equal(pclose(in), 0);
	assert_int_equal(strings, 5);
	free(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),		cmocka_unit_test(test_strings),
		cmocka_unit_test(test_cut_strings),	cmocka_unit_test(test_no_strings),
		cmocka_unit_test(test_pieces),		cmocka_unit_test(test_incomplete),
		cmocka_unit_test(test_announced_again), cmocka_unit_test(test_identity),
		cmocka_unit_test(test_limit),		cmocka_unit_test(test_limit_in_use),
		cmocka_unit_test(test_limit_bytes),	cmocka_unit_test(test_refused),
		cmocka_unit_test(test_live_strings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
