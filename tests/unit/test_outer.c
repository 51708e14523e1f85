/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stacks of one thread, one after another, whose outer part is remembered (bpf/outer.bpf.h):
 * each must have the hash that it has where nothing is.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "python_hostile.h"

#define FOR_EACH_MINOR(minor) for (int minor = MINOR_FIRST; minor <= MINOR_LAST; minor++)
#define DEPTH_MAX 24
#define LAYER_BYTES 24

static int teardown(void **state)
{
	(void)state;
	host_release();
	free(host_outer);
	host_outer = NULL;
	want_python = false;
	return 0;
}

/* A thread that runs 3.@minor, of which nothing is known. */
static void new_thread(int minor)
{
	ph_reset(minor);
	host_next_generation();
	free(host_outer);
	host_outer = host_alloc(sizeof(*host_outer));
}

/* Takes @picture as it is, and with what is remembered; true if that was of use. */
static bool take(const char *picture)
{
	struct event_stack fresh;
	bool used;

	ph_draw_later(picture);
	fresh = *ph_capture();
	used = stack_capture(&ph.regs, host.task, host_outer, false);
	if (host.task->stack.hash != fresh.hash || host.task->stack.result != fresh.result)
		fail_msg("3.%d: %s: %s hash, result %u instead of %u", ph.minor, picture,
			 host.task->stack.hash == fresh.hash ? "right" : "wrong",
			 host.task->stack.result, fresh.result);
	assert_int_equal(host.task->stack.python_cut, fresh.python_cut);
	if (!used)
		assert_memory_equal(host.task->stack.frames, fresh.frames, 8 * fresh.frame_count);
	return used;
}

static void the_same_again(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		new_thread(minor);
		assert_false(take("a[B]c[D]f[E]g."));
		assert_true(take("a[B]c[D]f[E]g."));
		assert_true(host.task->stack.frame_count < 6);
		assert_true(take("abc[B]c[D]f[E]g.")); /* further in */
		assert_true(take("a[G]h[D]f[E]g."));
		assert_true(take("a[B]cc[D]f[E]g."));
		assert_true(take("a[D]f[E]g."));
		assert_true(take("a[B]c[D]f[E]g."));
		assert_false(take("a[E]g.")); /* one run is not enough */
		assert_false(take("a[D]f[E]g."));
		assert_true(take("a[B]c[D]f[E]g."));
		if (minor >= 12) {
			assert_true(take("abc[][B]c[D]f[E]g."));
			assert_true(take("[]abc[B]c[D]f[E]g."));
			assert_true(take("[][][B]c[D]f[E]g."));
		}
	}
}

/* What is not as it was, and where. */
static void what_has_changed(void **state)
{
	static const char *const outer[] = {
		"[FE]g[H]i.",  "[DF]g[H]i.",	 "[E]g[H]i.", "[CDE]g[H]i.",
		"[DE]gg[H]i.", "[DE]g[A]b[H]i.", "g[H]i.",    "[DE]g[J]i.",
	};

	(void)state;
	FOR_EACH_MINOR(minor)
	{
		for (size_t i = 0; i < sizeof(outer) / sizeof(*outer); i++) {
			char picture[64];

			new_thread(minor);
			snprintf(picture, sizeof(picture), "a[B]c%s", outer[i]);
			assert_false(take("a[B]c[DE]g[H]i."));
			take(picture);
			assert_true(take(picture));
			take("a[B]c[DE]g[H]i.");
		}
	}
}

/* A code object dies, and another takes its place; a library comes; another program. */
static void what_ends_all_that_is_known(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		new_thread(minor);
		take("a[B]c[D]f[E]g.");
		assert_true(take("a[B]c[D]f[E]g."));
		(*python_epoch(HOST_SLOT, code_object('E')))++;
		assert_false(take("a[B]c[D]f[E]g."));
		assert_true(take("a[B]c[D]f[E]g."));
		(*python_epoch(HOST_SLOT, code_object('E')))--;
		host_next_generation();
		assert_false(take("a[B]c[D]f[E]g."));
		assert_true(take("a[B]c[D]f[E]g."));
		host_outer->slot++;
		assert_false(take("a[B]c[D]f[E]g."));
	}
}

static void stacks_that_are_not_whole(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		new_thread(minor);
		for (int i = 0; i < 3; i++) {
			assert_false(take("a[B]c[D]e[F]f!g."));
			assert_false(take("a[B]c!d[D]e[F]f."));
			assert_false(take("abc."));
		}
	}
}

/* More frames than fit, one run of the loop a layer: what is known is all of it. */
static void more_frames_than_there_is_room_for(void **state)
{
	char picture[1024], *at = picture;

	(void)state;
	for (int i = 0; i < 30; i++)
		at += sprintf(at, "[%c]abcde", 'A' + i % 26);
	sprintf(at, "f.");
	FOR_EACH_MINOR(minor)
	{
		uint64_t hash;

		new_thread(minor);
		ph_draw_later(picture);
		assert_false(stack_capture(&ph.regs, host.task, host_outer, false));
		assert_int_equal(host.task->stack.result, UNWIND_DEPTH);
		assert_int_equal(host.task->stack.python_cut, 0);
		hash = host.task->stack.hash;
		assert_true(stack_capture(&ph.regs, host.task, host_outer, false));
		assert_int_equal(host.task->stack.result, UNWIND_DEPTH);
		assert_true(host.task->stack.hash == hash);
		host_outer->forget = 1;
		assert_false(stack_capture(&ph.regs, host.task, host_outer, false));
		assert_true(host.task->stack.hash == hash);
		/* All of Python's frames are in it. */
		assert_non_null(strstr(ph_render(&host.task->stack), "ABCD"));
	}
}

/* The calls of a program, outermost first. */
struct program {
	char layers[DEPTH_MAX][LAYER_BYTES];
	size_t depth;
	uint32_t random;
};

static uint32_t below(struct program *p, uint32_t n)
{
	p->random = p->random * 1664525 + 1013904223;
	return (p->random >> 8) % n;
}

/* Python functions, and the C functions that called them. Which and how many these are
 * follows from the function that they call: see what_is_not_told_apart(). */
static void call(struct program *p)
{
	char *at = p->layers[p->depth++], last = 0;
	uint32_t functions = 1 + below(p, 4), natives;

	*at++ = '[';
	while (functions--)
		*at++ = last = (char)('A' + below(p, 20));
	*at++ = ']';
	natives = 1 + (uint32_t)last % 3;
	while (natives--)
		*at++ = (char)(last - 'A' + 'a');
	*at = 0;
}

static void go_on(struct program *p)
{
	uint32_t back = below(p, 3);

	while (back-- && p->depth)
		p->depth--;
	for (uint32_t n = below(p, 4); n && p->depth < DEPTH_MAX - 1; n--)
		call(p);
}

static const char *draw_program(struct program *p)
{
	static char picture[DEPTH_MAX * LAYER_BYTES];
	char *at = picture;

	at += sprintf(at, "%c", 'a' + (int)below(p, 5));
	for (size_t i = p->depth; i-- > 0;)
		at += sprintf(at, "%s", p->layers[i]);
	sprintf(at, "x.");
	return picture;
}

static void any_program(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		struct program p = {.random = (uint32_t)minor};
		size_t used = 0, took = 0;

		new_thread(minor);
		for (int i = 0; i < 4000; i++) {
			go_on(&p);
			if (i % 500 == 499)
				host_next_generation();
			used += take(draw_program(&p));
			took += p.depth > 0;
		}
		assert_true(used > took / 2);
	}
}

/* The limit of it: C functions that differ where two runs of the loop further in, the
 * frames' sizes and the registers are the same. */
static void what_is_not_told_apart(void **state)
{
	uint64_t hash;

	(void)state;
	new_thread(12);
	ph_draw_later("a[B]cde[F]ghi[J]k.");
	stack_capture(&ph.regs, host.task, host_outer, false);
	hash = host.task->stack.hash;
	assert_false(take("a[B]cge[F]ghi[J]k.") && host.task->stack.hash == hash);
	ph_draw_later("a[B]cge[F]gji[J]k.");
	hash = host.task->stack.hash;
	assert_true(stack_capture(&ph.regs, host.task, host_outer, false));
	assert_true(host.task->stack.hash == hash);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(the_same_again, teardown),
		cmocka_unit_test_teardown(what_has_changed, teardown),
		cmocka_unit_test_teardown(what_ends_all_that_is_known, teardown),
		cmocka_unit_test_teardown(stacks_that_are_not_whole, teardown),
		cmocka_unit_test_teardown(more_frames_than_there_is_room_for, teardown),
		cmocka_unit_test_teardown(any_program, teardown),
		cmocka_unit_test_teardown(what_is_not_told_apart, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
