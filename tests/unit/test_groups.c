/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "account/groups.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>

#include "account/cut_stacks.h"
#include "account/snapshot.h"
#include "base/arena.h"
#include "unwind_maps.h"

#define LIBC "/usr/lib/x86_64-linux-gnu/libc.so.6"
#define LIBSTDCXX "/usr/lib/x86_64-linux-gnu/libstdc++.so.6"

static struct frame new_frame = {.function = "operator new(unsigned long)", .module = LIBSTDCXX};
static struct frame strdup_frame = {.function = "strdup", .module = LIBC, .func_offset = 16};
static struct frame cache_frame = {
	.function = "cache_add", .file = "/src/cache.c", .line = 7, .module = "/bin/server"};
static struct frame other_line = {
	.function = "cache_add", .file = "/src/cache.c", .line = 9, .module = "/bin/server"};
static struct frame no_line = {.function = "parse", .module = "/bin/server", .func_offset = 0x20};
static struct frame no_name = {.module = "/bin/stripped", .offset = 0x1234, .has_offset = true};

struct sample {
	struct frame frames[8][2];
	struct snapshot_stack stacks[8];
	struct snapshot *s;
};

static struct sample sample;

static int setup(void **state)
{
	struct arena *arena = arena_new();

	(void)state;
	sample = (struct sample){.s = arena_alloc(arena, 1, sizeof(*sample.s))};
	sample.s->arena = arena;
	sample.s->stacks = sample.stacks;
	sample.s->request.top = 10;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	arena_free(sample.s->arena);
	return 0;
}

/* NULL: no such frame. */
static void add_stack(const struct frame *first, const struct frame *second, uint64_t bytes,
		      double growth)
{
	size_t i = sample.s->stack_count++;
	struct snapshot_stack *st = &sample.stacks[i];

	st->frames = sample.frames[i];
	if (first)
		st->frames[st->frame_count++] = *first;
	if (second)
		st->frames[st->frame_count++] = *second;
	st->live_bytes = bytes;
	st->live_blocks = 1;
	st->growth_bytes_per_s = growth;
}

static void check_group(size_t i, const char *name, uint64_t bytes)
{
	assert_true(i < sample.s->group_count);
	assert_string_equal(sample.s->groups[i].name, name);
	assert_int_equal(sample.s->groups[i].live_bytes, bytes);
}

static void by_function(void **state)
{
	(void)state;
	sample.s->request.group_by = GROUP_FUNCTION;
	add_stack(&cache_frame, NULL, 100, 5);
	add_stack(&other_line, NULL, 50, NAN);
	add_stack(&no_line, NULL, 120, NAN);
	assert_int_equal(groups_fill(sample.s), 0);
	assert_string_equal(sample.s->group_kind, "function");
	assert_int_equal(sample.s->group_count, 2);
	check_group(0, "cache_add", 150);
	check_group(1, "parse", 120);
	assert_true(sample.s->groups[0].growth_bytes_per_s == 5); /* the young one says nothing */
	assert_true(isnan(sample.s->groups[1].growth_bytes_per_s));
}

static void by_line(void **state)
{
	(void)state;
	sample.s->request.group_by = GROUP_LINE;
	add_stack(&cache_frame, NULL, 100, 0);
	add_stack(&other_line, NULL, 50, 0);
	add_stack(&cache_frame, &no_line, 1, 0);
	add_stack(&no_line, NULL, 40, 0);
	add_stack(&no_name, NULL, 30, 0);
	add_stack(NULL, NULL, 20, 0);
	assert_int_equal(groups_fill(sample.s), 0);
	assert_string_equal(sample.s->group_kind, "line");
	check_group(0, "/src/cache.c:7 (cache_add)", 101);
	check_group(1, "/src/cache.c:9 (cache_add)", 50);
	check_group(2, "parse+0x20 [/bin/server]", 40);
	check_group(3, "0x1234 [/bin/stripped]", 30);
	check_group(4, "[unknown]", 20);
}

static void the_caller_of_a_go_between_is_meant(void **state)
{
	(void)state;
	sample.s->request.group_by = GROUP_FUNCTION;
	add_stack(&new_frame, &cache_frame, 100, 0);
	add_stack(&strdup_frame, &no_line, 50, 0);
	add_stack(&strdup_frame, NULL, 10, 0); /* nobody else is there */
	assert_int_equal(groups_fill(sample.s), 0);
	check_group(0, "cache_add", 100);
	check_group(1, "parse", 50);
	check_group(2, "strdup", 10);
}

static void only_the_top_stays(void **state)
{
	(void)state;
	sample.s->request.group_by = GROUP_LINE;
	sample.s->request.top = 1;
	add_stack(&no_line, NULL, 10, 0);
	add_stack(&cache_frame, NULL, 100, 0);
	assert_int_equal(groups_fill(sample.s), 0);
	assert_int_equal(sample.s->group_count, 1);
	assert_int_equal(sample.s->stack_count, 1);
	check_group(0, "/src/cache.c:7 (cache_add)", 100);
}

static void stacks_need_no_groups(void **state)
{
	(void)state;
	add_stack(&cache_frame, NULL, 100, 0);
	assert_int_equal(groups_fill(sample.s), 0);
	assert_null(sample.s->group_kind);
	assert_int_equal(sample.s->group_count, 0);
	assert_int_equal(sample.s->stack_count, 1);
}

static void cuts_by_object_and_reason(void **state)
{
	struct cut_stacks *c = cut_stacks_new();
	char name[32];

	(void)state;
	cut_stacks_add(c, "/lib/a", UNWIND_NO_RULE, 2);
	cut_stacks_add(c, "/lib/a", UNWIND_NO_RULE, 3);
	cut_stacks_add(c, "/lib/a", UNWIND_PENDING, 1);
	cut_stacks_add(c, "/lib/b", 4711, 1);
	assert_int_equal(cut_stacks_count(c), 2);
	assert_int_equal(cut_stacks_at(c, 0)->count, 5);
	assert_int_equal(cut_stacks_at(c, 1)->result, UNWIND_PENDING);
	for (int i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "/tmp/%d", i);
		cut_stacks_add(c, name, (uint32_t)i % UNWIND_RESULTS_MAX, 1);
	}
	assert_true(cut_stacks_count(c) < 1000);
	assert_string_equal(cut_stacks_at(c, cut_stacks_count(c) - 1)->object, "[others]");
	cut_stacks_free(c);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(by_function),
		TEST(by_line),
		TEST(the_caller_of_a_go_between_is_meant),
		TEST(only_the_top_stays),
		TEST(stacks_need_no_groups),
		cmocka_unit_test(cuts_by_object_and_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
