/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "python/layout.h"

#define WORDS 96
#define COOKIE 0x7970677562656478 /* "xdebugpy" */

/* The beginnings of _PyRuntime in Debian's python3.13 to python3.15. */
static const uint64_t words_3_13[WORDS] = {
	/* 3.13.18 */
	COOKIE, 0x30d12f0, 0,	 283408, 608,  632,  194984, 7272, 7264, 7344, 7400, 7656, 7640,
	7648,	16,	   7752, 0,	 7768, 7760, 312,    0,	   8,	 16,   72,   152,  160,
	232,	32,	   80,	 8,	 0,    56,   72,     70,   208,	 112,  120,  128,  136,
	68,	52,	   96,	 104,	 200,  16,   8,	     416,  24,	 88,   168,  32,   24,
	16,	40,	   24,	 16,	 48,   32,   40,     24,   16,	 32,   16,   24,   40,
	16,	32,	   64,	 32,	 16,   40,   240,    200,
};

static const uint64_t words_3_14[WORDS] = {
	/* 3.14.10 */
	COOKIE, 0x30e0af0, 0,	 316616, 784,  808, 225864, 7280, 7272, 7344, 7360, 7408,
	7688,	7672,	   7680, 16,	 7784, 0,   7800,   7792, 7992, 0,    832,  0,
	8,	16,	   72,	 152,	 160,  232, 32,	    88,	  8,	0,    56,   80,
	74,	64,	   0,	 216,	 112,  120, 128,    136,  68,	52,   96,   104,
	208,	0,	   16,	 8,	 416,  24,  88,	    168,  40,	32,   16,   40,
	24,	16,	   200,	 24,	 40,   32,  48,	    32,	  40,	24,   16,   32,
	16,	24,	   40,	 16,	 32,   64,  32,	    16,	  40,	264,  192,
};

static const uint64_t words_3_15[WORDS] = {
	/* 3.15.2 */
	COOKIE, 0x30f02f0, 0,	 346568, 912,  936, 226240, 7272, 7264, 7336, 7352, 7400,
	7592,	7576,	   7584, 16,	 7736, 0,   7752,   7744, 7944, 0,    888,  0,
	8,	16,	   72,	 80,	 88,   96,  176,    184,  256,	32,   36,   40,
	136,	288,	   0,	 88,	 8,    0,   56,	    80,	  74,	64,   0,    216,
	112,	120,	   128,	 136,	 68,   52,  96,	    104,  208,	0,    16,   8,
	424,	24,	   88,	 168,	 32,   288, 944,    888,  40,	32,   16,   40,
	24,	16,	   200,	 24,	 40,   32,  48,	    32,	  40,	24,   16,   32,
	16,	24,	   40,	 16,	 32,   64,  32,	    16,	  40,	56,   176,
};

static const struct {
	int minor;
	const uint64_t *words;
} recorded[] = {{13, words_3_13}, {14, words_3_14}, {15, words_3_15}};

#define RECORDED (sizeof(recorded) / sizeof(*recorded))

static void versions_have_their_rows(void **state)
{
	struct python_layout l;

	(void)state;
	assert_int_equal(python_layout_by_version(8, &l), 0);
	assert_int_equal(l.runtime_interpreters_head, 32);
	assert_int_equal(l.runtime_gilstate_key, 1392);
	assert_int_equal(l.runtime_gc, 344);
	assert_int_equal(l.walk.instr_kind, PYTHON_LASTI_BYTES);
	assert_int_equal(python_layout_by_version(10, &l), 0);
	assert_int_equal(l.walk.thread_frame, 24);
	assert_int_equal(l.walk.thread_cframe, 48);
	assert_int_equal(l.walk.cframe_frame, PYTHON_NONE);
	assert_int_equal(l.walk.cframe_previous, 8);
	assert_int_equal(l.walk.instr_kind, PYTHON_LASTI_UNITS);
	assert_int_equal(python_layout_by_version(11, &l), 0);
	assert_int_equal(l.walk.thread_frame, 56);
	assert_int_equal(l.walk.thread_cframe, PYTHON_NONE);
	assert_int_equal(l.walk.cframe_frame, 8);
	assert_int_equal(l.walk.frame_entry, 68);
	assert_int_equal(l.walk.owner_entry, 0xff);
	assert_int_equal(l.walk.string_ascii, 48);
	assert_int_equal(python_layout_by_version(12, &l), 0);
	assert_int_equal(l.walk.owner_entry, 3);
	assert_int_equal(l.walk.frame_entry, PYTHON_NONE);
	assert_int_equal(l.runtime_gilstate_current, UINT32_MAX);
	assert_int_equal(l.interp_gc, 112);
	assert_int_equal(l.walk.string_ascii, 40);
}

static void unknown_versions_are_refused(void **state)
{
	struct python_layout l;

	(void)state;
	assert_int_equal(python_layout_by_version(7, &l), -ENOTSUP);
	assert_int_equal(python_layout_by_version(13, &l), -ENOTSUP);
	assert_int_equal(python_layout_by_version(-1, &l), -ENOTSUP);
	assert_int_equal(python_layout_by_version(INT32_MAX, &l), -ENOTSUP);
	assert_int_equal(python_layout_by_offsets(words_3_13, sizeof(words_3_13), 12, &l),
			 -ENOTSUP);
	assert_int_equal(python_layout_by_offsets(words_3_15, sizeof(words_3_15), 16, &l),
			 -ENOTSUP);
}

static void offsets_of_3_13(void **state)
{
	struct python_layout l;

	(void)state;
	assert_int_equal(python_layout_by_offsets(words_3_13, sizeof(words_3_13), 13, &l), 0);
	assert_int_equal(l.runtime_interpreters_head, 632);
	assert_int_equal(l.interp_next, 7264);
	assert_int_equal(l.interp_id, 7272);
	assert_int_equal(l.interp_threads_head, 7344);
	assert_int_equal(l.interp_gc, 7400);
	assert_int_equal(l.thread_next, 8);
	assert_int_equal(l.walk.thread_id, 152);
	assert_int_equal(l.walk.thread_frame, 72);
	assert_int_equal(l.walk.frame_owner, 70);
	assert_int_equal(l.walk.code_instructions, 200);
	assert_int_equal(l.walk.code_mask, 0);
}

static void offsets_of_3_14_and_3_15(void **state)
{
	struct python_layout l;

	(void)state;
	assert_int_equal(python_layout_by_offsets(words_3_14, sizeof(words_3_14), 14, &l), 0);
	assert_int_equal(l.runtime_interpreters_head, 808);
	assert_int_equal(l.interp_gc, 7408);
	assert_int_equal(l.walk.thread_id, 152);
	assert_int_equal(l.walk.frame_owner, 74);
	assert_int_equal(l.walk.code_instructions, 208);
	assert_true(l.walk.code_mask & 1);
	assert_int_equal(python_layout_by_offsets(words_3_15, sizeof(words_3_15), 15, &l), 0);
	assert_int_equal(l.runtime_interpreters_head, 936);
	assert_int_equal(l.interp_threads_head, 7336);
	assert_int_equal(l.walk.thread_id, 176);
	assert_int_equal(l.walk.thread_frame, 72);
	assert_int_equal(l.walk.frame_back, 8);
	assert_int_equal(l.walk.frame_code, 0);
	assert_int_equal(l.walk.frame_instr, 56);
	assert_int_equal(l.walk.code_file, 112);
	assert_int_equal(l.walk.code_lines, 136);
	assert_int_equal(l.walk.code_line, 68);
	assert_int_equal(l.walk.string_ascii, 40);
	assert_int_equal(l.walk.string_wide, 56);
}

/* A pre-release, or a version that says it is another. */
static void tables_of_other_versions_are_refused(void **state)
{
	struct python_layout l;

	(void)state;
	for (size_t i = 0; i < RECORDED; i++) {
		for (int minor = 13; minor <= 15; minor++)
			assert_int_equal(python_layout_by_offsets(recorded[i].words,
								  WORDS * sizeof(uint64_t), minor,
								  &l),
					 minor == recorded[i].minor ? 0 : -EINVAL);
	}
}

static void cut_tables_are_refused(void **state)
{
	struct python_layout l;

	(void)state;
	for (size_t bytes = 0; bytes < WORDS * sizeof(uint64_t); bytes++) {
		void *copy = malloc(bytes + 1);

		assert_non_null(copy);
		memcpy(copy, words_3_13, bytes);
		assert_int_equal(python_layout_by_offsets(copy, bytes, 13, &l), -EINVAL);
		free(copy);
	}
}

static void assert_bounded(const struct python_layout *l)
{
	const struct python_walk *w = &l->walk;

	assert_true(l->runtime_interpreters_head < 16 << 20 && l->interp_next < 16 << 20);
	assert_true(l->interp_threads_head < 16 << 20 && l->interp_gc < 16 << 20);
	assert_true(l->interp_id < 16 << 20 && l->thread_next < 4096);
	assert_true(w->thread_id < 4096 && w->thread_frame < 4096);
	assert_true(w->frame_back <= 120 && w->frame_code <= 120 && w->frame_instr <= 120);
	assert_true(w->frame_owner < 128);
	assert_true(w->code_file < 1024 && w->code_name < 1024 && w->code_qualname < 1024);
	assert_true(w->code_line < 1024 && w->code_lines < 1024 && w->code_instructions < 1024);
	assert_true(w->string_ascii < w->string_wide);
}

/* Each word in turn holds what it should not. */
static void hostile_words_lead_nowhere(void **state)
{
	static const uint64_t hostile[] = {
		0,	    1,		7,	    0x7f,	0xffff,	       0x10000,
		UINT32_MAX, 1ull << 32, 1ull << 63, UINT64_MAX, UINT64_MAX - 7};
	size_t refused = 0;

	(void)state;
	for (size_t i = 0; i < RECORDED * WORDS; i++) {
		for (size_t n = 0; n < sizeof(hostile) / sizeof(*hostile); n++) {
			uint64_t words[WORDS];
			struct python_layout l;

			memcpy(words, recorded[i / WORDS].words, sizeof(words));
			words[i % WORDS] = hostile[n];
			if (python_layout_by_offsets(words, sizeof(words),
						     recorded[i / WORDS].minor, &l))
				refused++;
			else
				assert_bounded(&l);
		}
	}
	assert_true(refused > 500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(versions_have_their_rows),
		cmocka_unit_test(unknown_versions_are_refused),
		cmocka_unit_test(offsets_of_3_13),
		cmocka_unit_test(offsets_of_3_14_and_3_15),
		cmocka_unit_test(tables_of_other_versions_are_refused),
		cmocka_unit_test(cut_tables_are_refused),
		cmocka_unit_test(hostile_words_lead_nowhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
