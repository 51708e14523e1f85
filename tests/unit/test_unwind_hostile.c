/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The BPF unwinder with tables, mappings, registers and stacks that no sane
 * process has. The verifier sees to it that none of this hurts the kernel; here,
 * that a walk ends soon and says why.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <time.h>

#include "unwind_hostile.h"

#define CODE HOSTILE_CODE
#define STACK HOSTILE_STACK
#define STACK_WORDS (HOSTILE_STACK_BYTES / 8)
#define RULE 2u /* the rule of all code, unless a test says otherwise */

static uint64_t stack[STACK_WORDS];
static const struct pt_regs regs = {CODE + 0x11, STACK, STACK + 64, STACK + 128};

static void set_words(const uint32_t *words, size_t count)
{
	host_set_table(1, words, count);
}

static void set_rule(struct unwind_rule rule)
{
	host_set_rule(RULE, rule);
}

/* One block of code, all of it with RULE, CFA = rsp + 16; every return address in it. */
static int setup(void **state)
{
	static const uint32_t words[] = {1, 1, 0, 1, RULE};
	struct unwind_mappings space = {.count = 1,
					.items = {{CODE, CODE + UNWIND_BLOCK_BYTES, CODE, 1, 0}}};

	(void)state;
	host_reset();
	set_words(words, sizeof(words) / sizeof(*words));
	set_rule((struct unwind_rule){.cfa = UNWIND_CFA_BY_RSP, .offset = 16});
	host_set_space(&space);
	for (size_t i = 0; i < STACK_WORDS; i++)
		stack[i] = CODE + 0x21;
	host_add_memory(STACK, stack, sizeof(stack));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	host_release();
	return 0;
}

static void assert_ends(struct pt_regs from, uint32_t result, uint32_t frames)
{
	const struct event_stack *s = hostile_capture(from);

	assert_int_equal(s->result, result);
	assert_int_equal(s->frame_count, frames);
}

static void the_world_of_these_tests_works(void **state)
{
	(void)state;
	assert_ends(regs, UNWIND_DEPTH, STACK_FRAMES_MAX);
	set_rule((struct unwind_rule){.cfa = UNWIND_CFA_BY_RSP, .offset = 8 * 100});
	/* 5 frames in 512 words; the sixth would be above. */
	assert_ends(regs, UNWIND_STACK_READ, 6);
	set_rule((struct unwind_rule){.cfa = UNWIND_CFA(UNWIND_CFA_END, 0)});
	assert_ends(regs, UNWIND_COMPLETE, 1);
}

static void a_cfa_in_memory(void **state)
{
	(void)state;
	set_rule((struct unwind_rule){
		.cfa = UNWIND_CFA(UNWIND_CFA_DEREF, UNWIND_RBP), .arg = 2, .offset = -8});
	stack[7] = STACK + 160; /* regs.bp - 8 */
	stack[160 / 8 + 1] = CODE + 0x99;
	assert_int_equal(host_address(hostile_capture(regs)->frames[1]), CODE + 0x99);
	stack[7] = STACK - 16;
	assert_ends(regs, UNWIND_STACK_ORDER, 1);
	stack[7] = STACK + sizeof(stack);
	assert_ends(regs, UNWIND_STACK_READ, 1);
}

static void tables_that_are_too_short(void **state)
{
	static const uint32_t words[] = {100, 1000, 0, 1000, 2000};

	(void)state;
	for (size_t count = 1; count <= sizeof(words) / sizeof(*words); count++) {
		set_words(words, count);
		assert_ends(regs, UNWIND_NO_RULE, 1);
	}
}

static void no_table_and_empty_tables(void **state)
{
	static const uint32_t no_blocks[] = {0, 0, 0};

	(void)state;
	set_words(no_blocks, 0);
	assert_int_equal(hostile_capture(regs)->result, UNWIND_NO_FRAME);
	set_words(no_blocks, 3);
	assert_ends(regs, UNWIND_NO_FRAME, 2);
	free(host.tables[1].pairs);
	host.tables[1].pairs = NULL;
	host_next_generation();
	assert_ends(regs, UNWIND_PENDING, 1);
}

static void block_counts_and_first_rows_out_of_range(void **state)
{
	static const uint32_t extremes[] = {0, 1, 2, 0x7fffffff, 0xfffffffc, 0xfffffffd, ~0u};
	const size_t n = sizeof(extremes) / sizeof(*extremes);
	uint32_t words[] = {1, 1, 0, 1, RULE};

	(void)state;
	for (size_t i = 0; i < n * n * n; i++) {
		words[0] = extremes[i % n];
		words[2] = extremes[i / n % n];
		words[3] = extremes[i / n / n];
		set_words(words, 5);
		hostile_capture(regs);
	}
}

static void pcs_outside_of_the_table(void **state)
{
	static const uint64_t bases[] = {CODE - UNWIND_BLOCK_BYTES, CODE + 0x11, 0, ~0ull};
	struct unwind_mappings space = *host.space;

	(void)state;
	for (size_t i = 0; i < sizeof(bases) / sizeof(*bases); i++) {
		space.items[0].base = bases[i];
		host_set_space(&space);
		assert_ends(regs, UNWIND_NO_RULE, 1);
	}
}

/* Block numbers of 32 bits are the same for addresses 2^48 apart. */
static void block_numbers_do_not_wrap(void **state)
{
	struct unwind_mappings space = *host.space;

	(void)state;
	for (int bit = UNWIND_BLOCK_BITS; bit < 64; bit++) {
		space.items[0].base = CODE - (1ull << bit);
		host_set_space(&space);
		assert_ends(regs, UNWIND_NO_RULE, 1);
	}
}

static void rows_that_are_not_sorted(void **state)
{
	static uint32_t words[4 + 65536];

	(void)state;
	words[0] = 1;
	words[3] = 65536;
	for (uint32_t i = 0; i < 65536; i++)
		words[4 + i] = unwind_row(65535 - i, i % 8);
	set_words(words, 4 + 65536);
	hostile_capture(regs);
	for (uint32_t i = 0; i < 65536; i++)
		words[4 + i] = unwind_row(i * 40503, i % 8);
	set_words(words, 4 + 65536);
	hostile_capture(regs);
}

static void every_row_of_a_full_block_is_found(void **state)
{
	static uint32_t words[4 + 65536];
	struct pt_regs from = regs;

	(void)state;
	words[0] = 1;
	words[3] = 65536;
	for (uint32_t i = 0; i < 65536; i++)
		words[4 + i] = unwind_row(i, i & 1 ? UNWIND_RULE_END : UNWIND_RULE_UNKNOWN);
	set_words(words, 4 + 65536);
	host_set_rule(UNWIND_RULE_END, (struct unwind_rule){.cfa = UNWIND_CFA_END << 4});
	for (uint32_t pc = 0; pc < 65536; pc += pc < 64 || pc > 65400 ? 1 : 97) {
		from.ip = CODE + pc + 1;
		assert_ends(from, pc & 1 ? UNWIND_COMPLETE : UNWIND_NO_RULE, 1);
	}
}

static void rules_that_do_not_exist(void **state)
{
	static const uint32_t words[] = {1, 1, 0, 1, 0xffff};

	(void)state;
	set_words(words, 5);
	assert_ends(regs, UNWIND_NO_RULE, 1);
}

static void rules_of_all_kinds(void **state)
{
	static const int32_t offsets[] = {INT32_MIN, -4096, -8, -1, 0, 1, 8, 4096, INT32_MAX};
	static const uint8_t slots[] = {0, 1, 127, 128, 254, 255};
	const size_t n = sizeof(offsets) / sizeof(*offsets), m = sizeof(slots);

	(void)state;
	for (uint32_t kind = 0; kind < 256; kind++) {
		for (size_t i = 0; i < n * m * m; i++) {
			set_rule((struct unwind_rule){.cfa = (uint8_t)kind,
						      .rbp = slots[i / n % m],
						      .rbx = slots[i / n / m],
						      .arg = (uint8_t)(i * 37),
						      .offset = offsets[i % n]});
			hostile_capture(regs);
		}
	}
}

static void registers_that_are_not_followed(void **state)
{
	(void)state;
	for (uint8_t reg = 0; reg < 16; reg++) {
		if (reg == UNWIND_RSP || reg == UNWIND_RBP || reg == UNWIND_RBX)
			continue;
		set_rule((struct unwind_rule){.cfa = UNWIND_CFA(UNWIND_CFA_REG, reg), .offset = 8});
		assert_ends(regs, UNWIND_REGISTER, 1);
	}
}

/* Nothing is near address 0, whatever an earlier stack left in the window. A register of
 * 0 was lost on the way. */
static void lost_registers_lead_nowhere(void **state)
{
	struct pt_regs from = regs;

	(void)state;
	for (int32_t offset = 0; offset < 1024; offset += 8) {
		set_rule((struct unwind_rule){.cfa = UNWIND_CFA(UNWIND_CFA_DEREF, UNWIND_RBP),
					      .offset = offset});
		from.bp = 0;
		assert_ends(from, UNWIND_REGISTER, 1);
		from.bp = 8;
		assert_ends(from, UNWIND_STACK_READ, 1);
	}
}

static void mappings_in_disorder(void **state)
{
	static const uint32_t item_counts[] = {0, 1, 2, 511, 512, 513, 1024, 0x80000000, ~0u};
	struct unwind_mappings space = {0};
	struct pt_regs from = regs;

	(void)state;
	srandom(3);
	for (int round = 0; round < 2000; round++) {
		for (size_t i = 0; i < UNWIND_MAPPINGS_MAX; i++) {
			uint64_t at = CODE + ((uint64_t)random() % 64 << 10);
			uint64_t end = CODE + ((uint64_t)random() % 64 << 10);

			space.items[i] = (struct unwind_mapping){at, end, CODE, random() % 3, 0};
		}
		space.count = item_counts[round % 9];
		host_set_space(&space);
		from.ip = CODE + (uint64_t)random() % UNWIND_BLOCK_BYTES;
		hostile_capture(from);
	}
}

static void each_of_512_mappings_is_found(void **state)
{
	struct unwind_mappings space = {0};
	struct pt_regs from = regs;

	(void)state;
	set_rule((struct unwind_rule){.cfa = UNWIND_CFA_END << 4});
	for (uint32_t i = 0; i < UNWIND_MAPPINGS_MAX; i++)
		space.items[i] =
			(struct unwind_mapping){CODE + i * 64, CODE + i * 64 + 32, CODE, 1, 0};
	for (space.count = 1; space.count <= UNWIND_MAPPINGS_MAX; space.count++) {
		host_set_space(&space);
		for (uint32_t i = 0; i <= space.count; i++) {
			from.ip = CODE + i * 64 + 1;
			assert_ends(from, i < space.count ? UNWIND_COMPLETE : UNWIND_NOT_READY, 1);
			from.ip = CODE + i * 64 + 33;
			assert_ends(from, UNWIND_NOT_READY, 1);
		}
	}
}

static void stacks_of_zeros_and_ones(void **state)
{
	(void)state;
	memset(stack, 0, sizeof(stack));
	assert_ends(regs, UNWIND_COMPLETE, 1); /* return address 0 */
	memset(stack, 0xff, sizeof(stack));
	assert_ends(regs, UNWIND_NO_MAPPING, 1);
}

/* Without tables: frame pointers that point at themselves, down, and at each other. */
static void frame_pointers_in_circles(void **state)
{
	struct unwind_mappings space = *host.space;
	struct pt_regs from = regs;

	(void)state;
	space.items[0].table = 0;
	host_set_space(&space);
	from.bp = STACK + 512;
	stack[64] = STACK + 512;
	assert_ends(from, UNWIND_NO_FRAME, 2);
	stack[64] = STACK + 256;
	assert_ends(from, UNWIND_NO_FRAME, 2);
	stack[64] = STACK + 512 + 16;
	stack[66] = STACK + 512;
	assert_ends(from, UNWIND_NO_FRAME, 3);
	stack[66] = 0;
	assert_ends(from, UNWIND_COMPLETE, 3);
	stack[66] = STACK + 513 + 32;
	assert_ends(from, UNWIND_NO_FRAME, 3);
	stack[66] = STACK + (2u << 20);
	assert_ends(from, UNWIND_NO_FRAME, 3);
	stack[66] = STACK + sizeof(stack);
	assert_ends(from, UNWIND_STACK_READ, 3);
}

static void frames_that_descend(void **state)
{
	(void)state;
	set_rule((struct unwind_rule){.cfa = UNWIND_CFA_BY_RSP, .offset = 0});
	assert_ends(regs, UNWIND_STACK_ORDER, 1);
	set_rule((struct unwind_rule){.cfa = UNWIND_CFA_BY_RSP, .offset = -8});
	assert_ends(regs, UNWIND_STACK_ORDER, 1);
	set_rule((struct unwind_rule){.cfa = UNWIND_CFA_BY_RBP, .offset = 12});
	assert_ends(regs, UNWIND_STACK_ORDER, 1);
}

/* A sigcontext that says it interrupted the restorer itself. */
static void signal_frames_in_circles(void **state)
{
	(void)state;
	set_rule((struct unwind_rule){.cfa = UNWIND_CFA(UNWIND_CFA_SIGNAL, 0)});
	stack[UNWIND_SIGNAL_RSP / 8] = STACK;
	assert_ends(regs, UNWIND_DEPTH, STACK_FRAMES_MAX);
	stack[UNWIND_SIGNAL_RSP / 8] = 8;
	assert_ends(regs, UNWIND_STACK_READ, 2);
}

static void stacks_at_the_ends_of_memory(void **state)
{
	static const uint64_t ends[] = {0,    8,	  16,	      1016,	 1024,
					4095, 1ull << 63, ~0ull - 15, ~0ull - 7, ~0ull};
	struct pt_regs from = regs;

	(void)state;
	host.memory_count = 0;
	for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
		from.sp = ends[i];
		hostile_capture(from);
		assert_int_not_equal(host.task->stack.result, UNWIND_COMPLETE);
		assert_int_equal(host.task->stack.frame_count, 1);
	}
}

/* Bounded by time too: a slow machine does fewer rounds. */
static void anything(void **state)
{
	uint32_t results[UNWIND_RESULTS] = {0};
	uint8_t bytes[1500];
	clock_t start = clock();

	(void)state;
	srandom(4711);
	for (int round = 0; round < 20000 && clock() - start < 3 * CLOCKS_PER_SEC / 2; round++) {
		size_t size = 400 + (size_t)random() % (sizeof(bytes) - 400);

		for (size_t i = 0; i < size; i++)
			bytes[i] = (uint8_t)(random() >> 8);
		results[hostile_run(bytes, size)]++;
	}
	/* The walks get somewhere. */
	for (uint32_t i = 0; i < UNWIND_RESULTS; i++)
		assert_true(results[i] || i == UNWIND_DEPTH || i == UNWIND_NOT_READY);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_world_of_these_tests_works),
		TEST(a_cfa_in_memory),
		TEST(tables_that_are_too_short),
		TEST(no_table_and_empty_tables),
		TEST(block_counts_and_first_rows_out_of_range),
		TEST(pcs_outside_of_the_table),
		TEST(block_numbers_do_not_wrap),
		TEST(rows_that_are_not_sorted),
		TEST(every_row_of_a_full_block_is_found),
		TEST(rules_that_do_not_exist),
		TEST(rules_of_all_kinds),
		TEST(registers_that_are_not_followed),
		TEST(lost_registers_lead_nowhere),
		TEST(mappings_in_disorder),
		TEST(each_of_512_mappings_is_found),
		TEST(stacks_of_zeros_and_ones),
		TEST(frame_pointers_in_circles),
		TEST(frames_that_descend),
		TEST(signal_frames_in_circles),
		TEST(stacks_at_the_ends_of_memory),
		TEST(anything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
