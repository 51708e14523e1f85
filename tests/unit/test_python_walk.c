/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Python frames in stacks, of each version that lays them out differently: see
 * python_host.h for the pictures. Then processes whose memory is not as it should be.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "python_hostile.h"

#define FOR_EACH_MINOR(minor) for (int minor = MINOR_FIRST; minor <= MINOR_LAST; minor++)

static int teardown(void **state)
{
	(void)state;
	host_release();
	want_python = false;
	return 0;
}

static void check(const char *rendered, int cut, uint32_t result)
{
	const struct event_stack *s = ph_capture();

	hostile_python_check(s);
	if (strcmp(ph_render(s), rendered))
		fail_msg("3.%d, placement %d: %s instead of %s", ph.minor, ph.placement,
			 ph.rendered, rendered);
	if ((int)s->python_cut != cut)
		fail_msg("3.%d: %s: cut is %u", ph.minor, rendered, s->python_cut);
	if (s->result != result)
		fail_msg("3.%d: %s: result is %u", ph.minor, rendered, s->result);
}

static void draw_and_check(const char *picture, const char *rendered)
{
	ph_draw(picture);
	check(rendered, 0, UNWIND_COMPLETE);
}

/* @text @times times, between @before and @after; valid until the next call but one. */
static const char *repeated(const char *before, const char *text, size_t times, const char *after)
{
	static char buffers[2][PICTURE_MAX];
	static int which;
	char *to = buffers[which ^= 1], *at = to;

	at += snprintf(at, PICTURE_MAX, "%s", before);
	for (size_t i = 0; i < times; i++)
		at += snprintf(at, (size_t)(to + PICTURE_MAX - at), "%s", text);
	snprintf(at, (size_t)(to + PICTURE_MAX - at), "%s", after);
	return to;
}

static void loops_are_replaced_by_what_they_run(void **state)
{
	static const char *const pictures[][2] = {
		{"a[B].", "aB."},
		{"[A].", "A."}, /* the loop itself allocates */
		{"ab[C]def[G]h.", "abCdefGh."},
		{"a[BCDE]f.", "aBCDEf."},
		{"a[BC]d[E]f[GHIJ]k.", "aBCdEfGHIJk."},
		{"a[B][C][D]e.", "aBCDe."}, /* loops that call each other */
		{"a[AAA]a[AAA]a.", "aAAAaAAAa."},
	};

	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		for (ph.placement = 0; ph.placement < PLACEMENTS; ph.placement++) {
			for (size_t i = 0; i < sizeof(pictures) / sizeof(*pictures); i++)
				draw_and_check(pictures[i][0], pictures[i][1]);
		}
	}
}

static void stacks_at_the_entry_of_a_function(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		struct event_stack at_return;

		ph_reset(minor);
		ph_draw("[A]b[CD]e.");
		at_return = *ph_capture();
		ph.regs.sp -= 8;
		put(ph.regs.sp, ph.regs.ip);
		ph.regs.ip = 0x123;
		stack_capture(&ph.regs, host.task, NULL, true);
		assert_string_equal(ph_render(&host.task->stack), "AbCDe.");
		assert_true(host.task->stack.hash == at_return.hash);
	}
}

/* The innermost and the outermost frame, and those between, at each place of a page. */
static void frames_at_every_place_of_a_page(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		for (uint64_t at = HEAP; at < HEAP + 2 * PAGE; at += 8) {
			ph_draw("a[B]c.");
			memset(ph.heap, 0, sizeof(ph.heap));
			ph.frames[0] = at;
			put_frame(0, 'B', true);
			put(at + ph.walk.frame_back,
			    ph_has_entry_frames() ? NATIVE_STACK + 32 + ENTRY_AT : 0);
			if (minor < 11 || minor > 12)
				put(THREAD + ph.walk.thread_frame, at);
			else
				put(NATIVE_STACK + 32 + ANCHOR_AT + ph.walk.cframe_frame, at);
			check("aBc.", 0, UNWIND_COMPLETE);
		}
	}
}

static void nothing_of_python(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		draw_and_check("abc.", "abc.");
		draw_and_check(".", ".");
		ph_draw("a[B]c[DE]f.");
		put_slot(&ph.walk.current, 0);
		check(minor < 11 ? "a@c@@f." : "a@c@f.", 0, UNWIND_COMPLETE);
		put_slot(&ph.walk.current, HEAP_END); /* not mapped */
		check(minor < 11 ? "a@c@@f." : "a@c@f.", 0, UNWIND_COMPLETE);
		put_slot(&ph.walk.current, THREAD);
		check("aBcDEf.", 0, UNWIND_COMPLETE);
		want_python = false;
		check(minor < 11 ? "a@c@@f." : "a@c@f.", 0, UNWIND_COMPLETE);
		want_python = true;
		free(host.python);
		host.python = NULL; /* another process does */
		check(minor < 11 ? "a@c@@f." : "a@c@f.", 0, UNWIND_COMPLETE);
	}
}

static const struct python_slot slot_kinds[] = {
	{.hop = {-24}, .hops = 1},
	{.hop = {0x318}, .hops = 1},
	{.hop = {8, 0x48}, .hops = 2},
	{.hop = {8, 16, 0x28}, .hops = 3},
	{.hop = {8, 32, -8}, .hops = 3},
	{.address = GLOBALS + 0x240, .hops = 1},
	{.address = GLOBALS + 0x240, .hop = {8}, .hops = 1},
};

#define SLOT_KINDS (sizeof(slot_kinds) / sizeof(*slot_kinds))

/* The current thread state runs B, the attached one, another, runs D. */
static void draw_two_threads(struct python_slot current, struct python_slot attached)
{
	uint64_t frame = HEAP_END - 1024, entry = NATIVE_STACK + FUNCTION_FRAME_BYTES + ENTRY_AT;

	ph.walk.current = current;
	ph.walk.attached = attached;
	ph_use_walk();
	ph_draw("a[B]c.");
	memcpy(at_address(OTHER_THREAD, 0x600), at_address(THREAD, 0x600), 0x600);
	put_slot(&attached, OTHER_THREAD);
	ph.frames[1] = frame;
	put_frame(1, 'D', true);
	put(frame + ph.walk.frame_back, ph_has_entry_frames() ? entry : 0);
	if (ph.walk.cframe_frame == PYTHON_NONE) {
		put(OTHER_THREAD + ph.walk.thread_frame, frame);
		return;
	}
	/* Both say that the one loop on the stack is theirs. */
	put(OTHER_THREAD + ph.walk.thread_frame, ROOT_CFRAME);
	put(ROOT_CFRAME + ph.walk.cframe_frame, frame);
}

/* What the loop on the stack is replaced by. */
static char thread_shown(void)
{
	const struct event_stack *s = ph_capture();
	const char *python;

	hostile_python_check(s);
	python = strpbrk(ph_render(s), "BD");
	return python ? *python : 0;
}

static void the_thread_state_is_found(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		for (size_t i = 0; i < SLOT_KINDS * SLOT_KINDS; i++) {
			const struct python_slot *current = &slot_kinds[i / SLOT_KINDS];

			if (i / SLOT_KINDS == i % SLOT_KINDS)
				continue;
			ph_reset(minor);
			draw_two_threads(*current, slot_kinds[i % SLOT_KINDS]);
			check("aBc.", 0, UNWIND_COMPLETE);
			put_slot(current, 0); /* runs no Python code just now */
			assert_int_equal(thread_shown(), 'D');
			put_slot(current, THREAD);
			put_slot(&ph.walk.attached, 0);
			check("aBc.", 0, UNWIND_COMPLETE);
			put_slot(current, 0);
			check("a@c.", 0, UNWIND_COMPLETE);
		}
	}
}

/* A global variable says which thread state runs, be it of another thread. */
static void states_of_other_threads(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		for (size_t i = 5; i < SLOT_KINDS; i++) {
			draw_two_threads(slot_kinds[i], slot_kinds[3]);
			put(THREAD + ph.walk.thread_id, FS_BASE + 8);
			assert_int_equal(thread_shown(), 'D');
			put_slot(&ph.walk.attached, 0);
			check("a@c.", 0, UNWIND_COMPLETE);
			put_slot(&ph.walk.current, HEAP_END);
			check("a@c.", 0, UNWIND_COMPLETE);
		}
	}
}

/* The state that is current, even if it runs nothing. */
static void the_current_state_goes_first(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		draw_two_threads(slot_kinds[0], slot_kinds[3]);
		put(THREAD + ph.walk.thread_frame, 0);
		check("a@c.", 0, UNWIND_COMPLETE);
	}
}

static void no_slots_and_broken_hops(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		ph.walk.current = slot_kinds[3];
		ph_use_walk();
		ph_draw("a[B]c.");
		check("aBc.", 0, UNWIND_COMPLETE);
		put(DTV + 16, 0);
		check("a@c.", 0, UNWIND_COMPLETE);
		put(DTV + 16, ~7ull);
		check("a@c.", 0, UNWIND_COMPLETE);
		put(FS_BASE + 8, 0);
		check("a@c.", 0, UNWIND_COMPLETE);
		memset(&ph.walk.current, 0, sizeof(ph.walk.current));
		ph_use_walk();
		check("a@c.", 0, UNWIND_COMPLETE);
		ph.walk.current = (struct python_slot){GLOBALS, {0, 0, 0}, ~0u};
		ph_use_walk();
		ph_capture();
	}
}

/* What has no place in what is left of the native stack comes last. */
static void native_walks_that_are_cut(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		for (ph.placement = 0; ph.placement < PLACEMENTS; ph.placement++) {
			ph_draw("a[BC]d!e[FG]h[I]j.");
			check("aBCd!FGI", 0, UNWIND_NO_RULE);
			ph_draw("!a[B]c.");
			check("!B", 0, UNWIND_NO_RULE);
			ph_draw("a[B]c.");
			put(NATIVE_STACK + 32 - 8, 0x123456); /* in place of the loop's caller */
			check("aB", 0, UNWIND_NO_MAPPING);
		}
	}
}

static void stack_memory_that_ends(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		ph_draw("a[BC]def[G]h.");
		/* Loops to 3.10 have a frame each. */
		host.memory[0].bytes = PAGE + 32 + EVAL_FRAME_BYTES * (minor < 11 ? 2 : 1) + 32 - 1;
		/* Entry frames are on the stack as well; what matters of them is before its end. */
		check("aBCdG", 0, UNWIND_STACK_READ);
	}
}

/* Loops of 3.8 and 3.9 are known by their code alone, the others' not. */
static void where_the_loop_is_not_known(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		ph.walk.eval_start = ph.walk.eval_end = 0;
		ph_use_walk();
		draw_and_check("a[B]c[DE]f.", minor < 10 ? "a@c@@f.BDE" : "aBcDEf.");
	}
}

/* In the code of the loop, but running none of these frames. */
static void loops_without_frames_stay(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		draw_and_check("a@b[C]d[E]f.", minor < 10 ? "aCbEd@f." : "a@bCdEf.");
		draw_and_check("a[B]c@d.", "aBc@d.");
	}
}

/* From 3.12 on a loop that tidies up after its last frame runs none: __del__ is called. */
static void loops_that_run_nothing(void **state)
{
	(void)state;
	for (int minor = 12; minor <= MINOR_LAST; minor++) {
		ph_reset(minor);
		draw_and_check("a[]b.", "ab.");
		draw_and_check("a[]b[C]d.", "abCd.");
		draw_and_check("a[B]c[]d[E]f.", "aBcdEf.");
		draw_and_check("a[][]b[][C][][]d.", "abCd.");
		draw_and_check("a[B]c[]d.", "aBcd.");
		draw_and_check("a[]b[]c.", "abc.");
		/* No stack is without frames. */
		ph_draw("[]a.");
		put(NATIVE_STACK + EVAL_FRAME_BYTES - 8, 1);
		hostile_python_twice();
	}
}

static void as_many_frames_as_there_is_room_for(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		for (ph.placement = 0; ph.placement < OVER_PAGES; ph.placement++) {
			draw_and_check(repeated("a[", "B", 64, "]c."),
				       repeated("a", "B", 64, "c."));
			draw_and_check(repeated("a", "[B]", 62, "c[DE]f."),
				       repeated("a", "B", 62, "cDEf."));
		}
	}
}

/* They are the innermost, and the loop that runs the last of them is still replaced. */
static void more_python_frames_than_are_taken(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		ph_draw(repeated("a[", "B", 65, "]c."));
		check(minor < 11 ? repeated("a", "B", 64, "@c.") : repeated("a", "B", 64, "c."), 1,
		      UNWIND_COMPLETE);
		ph_draw(repeated("a[B]c[", "D", 200, "]e[F]g."));
		hostile_python_check(ph_capture());
		assert_int_equal(host.task->stack.python_cut, 1);
		assert_memory_equal(ph_render(&host.task->stack), repeated("aBc", "D", 63, ""), 66);
		if (minor > 10)
			assert_string_equal(ph.rendered, repeated("aBc", "D", 63, "e@g."));
	}
}

static void cut_where_the_loop_is_not_known(void **state)
{
	(void)state;
	for (int minor = 12; minor <= MINOR_LAST; minor++) {
		ph_reset(minor);
		ph.walk.eval_start = ph.walk.eval_end = 0;
		ph_use_walk();
		ph_draw(repeated("a[B]c[", "D", 70, "]e."));
		check(repeated("aBc@e.", "D", 63, ""), 1, UNWIND_COMPLETE);
	}
}

/* Each in a loop of its own: twice as many steps. */
static void many_loops(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		draw_and_check(repeated("a", "[B]", 64, "c."), repeated("a", "B", 64, "c."));
		ph_draw(repeated("a", "[B]", 65, "c."));
		check(repeated("a", "B", 64, "@c."), 1, UNWIND_COMPLETE);
		ph_draw(repeated("a", "[B]", 100, "c."));
		check(repeated("", "", 0, repeated("a", "B", 64, repeated("", "@", 36, "c."))), 1,
		      UNWIND_COMPLETE);
	}
}

/* More of them than steps are taken: what is not shown is said to be cut. */
static void many_loops_that_run_nothing(void **state)
{
	const struct event_stack *s;

	(void)state;
	for (int minor = 12; minor <= MINOR_LAST; minor++) {
		ph_reset(minor);
		for (size_t empty = 0; empty < 100; empty++) {
			size_t frames = 0, shown = 0;

			ph_draw(repeated("a", "[]", empty, repeated("", "[B]b", 40, "c[D].")));
			s = ph_capture();
			hostile_python_check(s);
			for (const char *c = ph_render(s); *c; c++)
				frames += *c == 'B' || *c == 'D';
			shown = strcspn(ph.rendered, ".");
			assert_true(frames == 41 || s->python_cut || s->result == UNWIND_DEPTH);
			assert_true(s->result == UNWIND_DEPTH || shown + 1 == strlen(ph.rendered));
		}
		ph_draw(repeated("a", "[]", 1, repeated("", "[B]", 64, "c.")));
		s = ph_capture();
		ph_render(s);
		if (!s->python_cut)
			assert_string_equal(ph.rendered, repeated("a", "B", 64, "c."));
		assert_int_equal(ph.rendered[strlen(ph.rendered) - 1], '.');
	}
}

/* A stack from which frames are missing is not called whole. */
static void more_frames_than_a_stack_has(void **state)
{
	const struct event_stack *s;
	char full[PICTURE_MAX];

	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		for (size_t natives = 55; natives < 140; natives++) {
			size_t whole = natives + 64 + 2;
			/* Python's frames go before native ones further out. */
			size_t shown =
				natives + 64 < STACK_FRAMES_MAX ? natives : STACK_FRAMES_MAX - 64;

			ph_draw(repeated("", "a", natives, repeated("[", "B", 64, "]c.")));
			s = ph_capture();
			hostile_python_check(s);
			snprintf(full, sizeof(full), "%s",
				 repeated("", "a", shown, repeated("", "B", 64, "c.")));
			assert_int_equal(s->frame_count,
					 whole < STACK_FRAMES_MAX ? whole : STACK_FRAMES_MAX);
			assert_memory_equal(ph_render(s), full, s->frame_count);
			if (whole > STACK_FRAMES_MAX)
				assert_true(s->result == UNWIND_DEPTH || s->python_cut);
			else
				assert_true(s->result == UNWIND_COMPLETE && !s->python_cut);
		}
	}
}

static void leftovers_that_do_not_fit(void **state)
{
	const struct event_stack *s;

	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		for (size_t natives = 100; natives <= 130; natives++) {
			ph_draw(repeated("", "a", natives, "![BBBBBBBBBB]."));
			s = ph_capture();
			hostile_python_check(s);
			assert_true(natives + 11 <= STACK_FRAMES_MAX || s->python_cut ||
				    s->result == UNWIND_DEPTH);
			assert_int_equal(s->python_cut && natives + 11 <= STACK_FRAMES_MAX, 0);
		}
	}
}

static uint64_t hash_of(const char *picture)
{
	ph_draw(picture);
	return ph_capture()->hash;
}

static void equal_stacks_have_equal_hashes(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		uint64_t hash, other;

		ph_reset(minor);
		hash = hash_of("a[BC]d[E]f.");
		for (ph.placement = 0; ph.placement < PLACEMENTS; ph.placement++)
			assert_true(hash_of("a[BC]d[E]f.") == hash);
		ph.placement = 0;
		assert_true(hash_of("a[CB]d[E]f.") != hash);
		assert_true(hash_of("a[BC]d[F]f.") != hash);
		assert_true(hash_of("a[B]d[E]f.") != hash);
		assert_true(hash_of("a[BC]e[E]f.") != hash);
		assert_true(hash_of("a[BC]d[EE]f.") != hash);
		hash_of("a[BC]d[E]f.");
		put_instruction(ph.frames[1], code_object('C'), 1);
		other = ph_capture()->hash;
		assert_true(other != hash);
	}
}

/* Code objects that were freed and others that took their places are other functions. */
static void epochs_count_in_the_hash(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		struct event_stack first;
		uint64_t second;

		ph_reset(minor);
		ph_draw("a[BC]d[E]f.");
		first = *ph_capture();
		assert_true(ph_capture()->hash == first.hash);
		++*python_epoch(HOST_SLOT, code_object('C'));
		second = ph_capture()->hash;
		assert_true(second != first.hash);
		host.task->stack.hash = first.hash;
		assert_memory_equal(&host.task->stack, &first,
				    offsetof(struct event_stack, frames) + 8 * first.frame_count);
		++*python_epoch(HOST_SLOT, code_object('C'));
		assert_true(ph_capture()->hash != second);
		assert_true(ph_capture()->hash != first.hash);
		memset(host.epochs, 0, sizeof(host.epochs));
		++*python_epoch(HOST_SLOT, code_object('Z'));
		++*python_epoch(HOST_SLOT + 1, code_object('C'));
		assert_true(ph_capture()->hash == first.hash);
		memset(host.epochs, 0, sizeof(host.epochs));
	}
}

static uint32_t unit_shown(int32_t unit)
{
	const struct event_stack *s;

	ph_draw("a[B]c.");
	put_instruction(ph.frames[0], code_object('B'), unit);
	s = ph_capture();
	assert_true(python_frame_is(s->frames[1]));
	assert_true(python_frame_code(s->frames[1]) == code_object('B'));
	return python_frame_unit(s->frames[1]);
}

static void instructions(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		assert_int_equal(unit_shown(0), 0);
		assert_int_equal(unit_shown(1), 1);
		assert_int_equal(unit_shown(65536), 65536);
		assert_int_equal(unit_shown(PYTHON_UNIT_UNKNOWN - 1), PYTHON_UNIT_UNKNOWN - 1);
		assert_int_equal(unit_shown(PYTHON_UNIT_UNKNOWN), PYTHON_UNIT_UNKNOWN);
		assert_int_equal(unit_shown(PYTHON_UNIT_UNKNOWN + 1), PYTHON_UNIT_UNKNOWN);
		assert_int_equal(unit_shown(INT32_MAX / 2), PYTHON_UNIT_UNKNOWN);
		assert_int_equal(unit_shown(-1), PYTHON_UNIT_START);
		assert_int_equal(unit_shown(INT32_MIN / 2), PYTHON_UNIT_START);
	}
	/* A range of addresses is as large as one likes. */
	for (int minor = 11; minor <= MINOR_LAST; minor++) {
		ph_reset(minor);
		ph_draw("a[B]c.");
		put(ph.frames[0] + ph.walk.frame_instr, 1ull << 62);
		ph_capture();
		assert_int_equal(python_frame_unit(host.task->stack.frames[1]),
				 PYTHON_UNIT_UNKNOWN);
		put(ph.frames[0] + ph.walk.frame_instr, 0);
		ph_capture();
		assert_int_equal(python_frame_unit(host.task->stack.frames[1]), PYTHON_UNIT_START);
	}
}

static void tags_of_code_pointers(void **state)
{
	(void)state;
	for (int minor = 13; minor <= MINOR_LAST; minor++) {
		ph_reset(minor);
		for (uint64_t tag = 0; tag < 8; tag++) {
			ph_draw("a[B]c[D]e.");
			put(ph.frames[0] + ph.walk.frame_code, code_object('B') | tag);
			put(ph.frames[1] + ph.walk.frame_code, code_object('D') | (7 - tag));
			if (minor >= 14)
				check("aBcDe.", 0, UNWIND_COMPLETE);
			else
				ph_capture();
		}
	}
}

/* Those of threads, generators and frame objects are frames; no version has more to 3.11. */
static void owners(void **state)
{
	(void)state;
	for (int minor = 11; minor <= MINOR_LAST; minor++) {
		ph_reset(minor);
		for (unsigned int owner = 0; owner < 256; owner++) {
			ph_draw("a[BC]d.");
			put_byte(ph.frames[0] + ph.walk.frame_owner, (uint8_t)owner);
			if (owner < OWNER_ENTRY_FRAME || minor == 11) {
				check("aBCd.", 0, UNWIND_COMPLETE);
				continue;
			}
			hostile_python_twice();
			assert_null(strchr(ph_render(&host.task->stack), 'B'));
			assert_non_null(strchr(ph.rendered, 'C'));
		}
	}
}

static void frames_in_circles(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		for (uint32_t from = 0; from < 4; from++) {
			for (uint32_t to = 0; to <= from; to++) {
				ph_draw("a[BC]d[EF]g.");
				put(ph.frames[from] + ph.walk.frame_back, ph.frames[to]);
				hostile_python_twice();
				assert_int_equal(host.task->stack.python_cut, 1);
			}
		}
	}
}

/* The reads stay few though nothing is found. */
static void entry_frames_in_circles(void **state)
{
	(void)state;
	for (int minor = 12; minor <= MINOR_LAST; minor++) {
		uint64_t entry = NATIVE_STACK + FUNCTION_FRAME_BYTES + ENTRY_AT;

		ph_reset(minor);
		ph_draw("a[]b.");
		put(entry + ph.walk.frame_back, entry);
		hostile_python_twice();
		ph_draw("a[]b[]c.");
		put(entry + EVAL_FRAME_BYTES + FUNCTION_FRAME_BYTES + ph.walk.frame_back, entry);
		hostile_python_twice();
		ph_draw("a[B]c[D]e.");
		put(entry + ph.walk.frame_back, entry);
		hostile_python_twice();
		assert_memory_equal(ph_render(&host.task->stack), "aBc@e.", 7);
	}
}

static void cframes_in_circles(void **state)
{
	(void)state;
	for (int minor = 10; minor <= 11; minor++) {
		uint64_t cframe = NATIVE_STACK + FUNCTION_FRAME_BYTES + ANCHOR_AT;

		ph_reset(minor);
		ph_draw("a[B]c[D]e[F]g.");
		put(cframe + ph.walk.cframe_previous, cframe);
		hostile_python_twice();
		/* The second loop is not where the CFrame says; nothing is lost. */
		assert_string_equal(ph_render(&host.task->stack), "aBc@e@g.DF");
		put(cframe + ph.walk.cframe_previous, 3);
		hostile_python_twice();
		assert_memory_equal(ph_render(&host.task->stack), "aBc@e@g.", 8);
		put(cframe + ph.walk.cframe_previous, ~0ull);
		hostile_python_twice();
	}
}

static const uint64_t bad_addresses[] = {
	0,
	1,
	7,
	8,
	HEAP - 8,
	HEAP_END,
	HEAP_END - 8,
	HEAP + 1,
	HEAP + 4,
	1ull << 47,
	(1ull << 47) - 8,
	1ull << 63,
	(1ull << 63) + 8,
	(1ull << 63) + 512,
	~0ull,
	~7ull,
	~0ull << 12,
	CODE_OBJECTS,
	NATIVE_STACK,
	THREAD,
};

#define BAD_ADDRESSES (sizeof(bad_addresses) / sizeof(*bad_addresses))

static void frames_at_bad_addresses(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		for (size_t i = 0; i < BAD_ADDRESSES * 3; i++) {
			uint64_t bad = bad_addresses[i / 3];

			ph_draw("a[BC]d[E]f.");
			if (i % 3)
				put(ph.frames[i % 3 - 1] + ph.walk.frame_back, bad);
			else
				put(THREAD + ph.walk.thread_frame, bad);
			hostile_python_twice();
		}
	}
}

static void bad_code_pointers(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		for (size_t i = 0; i < BAD_ADDRESSES; i++) {
			ph_draw("a[B]c[DE]f.");
			put(ph.frames[1] + ph.walk.frame_code, bad_addresses[i]);
			hostile_python_twice();
			/* What is nearer is right in any case. */
			assert_memory_equal(ph_render(&host.task->stack), "aBc", 3);
		}
		/* Static code objects (frozen modules, the shim of __init__) as clang aligns them.
		 */
		ph_draw("a[B]c[DE]f.");
		put(ph.frames[1] + ph.walk.frame_code, code_object('D') + 8);
		put_instruction(ph.frames[1], code_object('D') + 8, (int32_t)unit_of('D'));
		hostile_python_twice();
		assert_non_null(strchr(ph_render(&host.task->stack), 'E'));
	}
}

static void records_with_any_offsets(void **state)
{
	static const uint16_t offsets[] = {0, 1, 4, 7, 9, 127, 0x7fff, 0xfff8, 0xfffe, PYTHON_NONE};
	const size_t first = offsetof(struct python_walk, thread_id);
	const size_t last = offsetof(struct python_walk, code_instructions);

	(void)state;
	FOR_EACH_MINOR(minor)
	{
		struct python_walk whole;

		ph_reset(minor);
		whole = ph.walk;
		for (size_t at = first; at <= last; at += sizeof(uint16_t)) {
			for (size_t i = 0; i < sizeof(offsets) / sizeof(*offsets); i++) {
				ph.walk = whole;
				ph_draw("a[BC]d[E]f.");
				memcpy((uint8_t *)&ph.walk + at, &offsets[i], sizeof(uint16_t));
				ph_use_walk();
				hostile_python_twice();
			}
		}
		for (unsigned int value = 0; value < 256; value++) {
			ph.walk = whole;
			ph_draw("a[BC]d[E]f.");
			ph.walk.owner_entry = (uint8_t)value;
			ph.walk.instr_kind = (uint8_t)value;
			ph_use_walk();
			hostile_python_twice();
		}
	}
}

static void records_of_another_version(void **state)
{
	(void)state;
	FOR_EACH_MINOR(minor)
	{
		FOR_EACH_MINOR(other)
		{
			struct python_walk walk;

			ph_reset(other);
			walk = ph.walk;
			ph_reset(minor);
			ph_draw("a[BC]d[E]f.");
			walk.current = ph.walk.current;
			walk.thread_id = ph.walk.thread_id;
			ph.walk = walk;
			ph_use_walk();
			hostile_python_twice();
		}
	}
}

/* In turn, each word that is not 0 becomes something else. */
static void any_word_is_another(void **state)
{
	(void)state;
	srandom(11);
	FOR_EACH_MINOR(minor)
	{
		ph_reset(minor);
		ph.walk.attached = slot_kinds[3];
		ph.placement = minor % PLACEMENTS;
		ph_use_walk();
		ph_draw("a[BC]d[E]f[GHI]j.");
		for (size_t r = 0; r < REGIONS; r++) {
			for (size_t i = 0; i < regions[r].bytes / 8; i++) {
				uint64_t was = regions[r].words[i];

				for (size_t k = 0; was && k < BAD_ADDRESSES + 3; k++) {
					regions[r].words[i] =
						k < BAD_ADDRESSES ? bad_addresses[k]
								  : was ^ 1ull << (random() & 63);
					hostile_python_twice();
				}
				regions[r].words[i] = was;
			}
		}
		check("aBCdEfGHIj.", 0, UNWIND_COMPLETE);
	}
}

/* Bounded by time too: a slow machine does fewer rounds. */
static void anything(void **state)
{
	uint32_t with_python = 0, rounds = 0;
	uint8_t bytes[600];
	clock_t start = clock();

	(void)state;
	srandom(4711);
	for (; rounds < 20000 && clock() - start < 2 * CLOCKS_PER_SEC; rounds++) {
		size_t size = 50 + (size_t)random() % (sizeof(bytes) - 50);

		for (size_t i = 0; i < size; i++)
			bytes[i] = (uint8_t)(random() >> 8);
		with_python += hostile_python_run(bytes, size);
	}
	/* The walks get somewhere. */
	assert_true(with_python > rounds / 8);
}

#define TEST(function) cmocka_unit_test_teardown(function, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(loops_are_replaced_by_what_they_run),
		TEST(stacks_at_the_entry_of_a_function),
		TEST(frames_at_every_place_of_a_page),
		TEST(nothing_of_python),
		TEST(the_thread_state_is_found),
		TEST(states_of_other_threads),
		TEST(the_current_state_goes_first),
		TEST(no_slots_and_broken_hops),
		TEST(native_walks_that_are_cut),
		TEST(stack_memory_that_ends),
		TEST(where_the_loop_is_not_known),
		TEST(loops_without_frames_stay),
		TEST(loops_that_run_nothing),
		TEST(as_many_frames_as_there_is_room_for),
		TEST(more_python_frames_than_are_taken),
		TEST(cut_where_the_loop_is_not_known),
		TEST(many_loops),
		TEST(many_loops_that_run_nothing),
		TEST(more_frames_than_a_stack_has),
		TEST(leftovers_that_do_not_fit),
		TEST(equal_stacks_have_equal_hashes),
		TEST(epochs_count_in_the_hash),
		TEST(instructions),
		TEST(tags_of_code_pointers),
		TEST(owners),
		TEST(frames_in_circles),
		TEST(entry_frames_in_circles),
		TEST(cframes_in_circles),
		TEST(frames_at_bad_addresses),
		TEST(bad_code_pointers),
		TEST(records_with_any_offsets),
		TEST(records_of_another_version),
		TEST(any_word_is_another),
		TEST(anything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
